//! What `up` may lose is what was agreed to, whatever has changed since the plan was shown.

#![allow(clippy::unwrap_used, clippy::panic)]

use api::{Name, Progress};
use head::{Consent, Error, Head, UpOptions};
use profile::Cluster;
use std::path::Path;

fn cluster(compute: u32) -> Cluster {
    let text = format!(
        "name = \"c\"\ntype = \"fake\"\n[[group]]\nname = \"head\"\n\
         [[group]]\nname = \"compute\"\ncount = {compute}\n"
    );
    profile::cluster(&text, "c.toml").unwrap().value
}

fn agreed(consent: Consent) -> UpOptions {
    UpOptions {
        consent,
        ..UpOptions::default()
    }
}

#[tokio::test]
async fn more_than_was_agreed_to_is_not_done() {
    let state = tempfile::tempdir().unwrap();
    let head = Head::open(state.path(), Path::new("oscarv"), Vec::new()).unwrap();
    let quiet = Progress::default();
    let (four, two) = (cluster(4), cluster(2));
    // Nothing is lost by making it: nothing has to be agreed to.
    head.up(&four, UpOptions::default(), &quiet).await.unwrap();

    let plan = head.plan(&cluster(3)).await.unwrap();
    let one: Vec<_> = plan.destructive().into_iter().cloned().collect();
    assert_eq!(one.len(), 1);
    let error = head
        .up(&two, agreed(Consent::To(one)), &quiet)
        .await
        .unwrap_err();
    let Error::NotAgreed { steps } = &error else {
        panic!("{error}");
    };
    assert_eq!(steps, "- remove compute3");
    assert!(error.hint().unwrap().contains("oscarv up"));
    let name = Name::new("c").unwrap();
    let nodes = head.status(&name).await.unwrap().nodes;
    let running = nodes.iter().filter(|n| n.state == v3m::State::Running);
    assert_eq!(running.count(), 5, "{nodes:?}");

    let plan = head.plan(&two).await.unwrap();
    let both = plan.destructive().into_iter().cloned().collect();
    head.up(&two, agreed(Consent::To(both)), &quiet)
        .await
        .unwrap();
    assert_eq!(head.status(&name).await.unwrap().nodes.len(), 3);
    head.up(&cluster(1), agreed(Consent::Everything), &quiet)
        .await
        .unwrap();
    assert_eq!(head.status(&name).await.unwrap().nodes.len(), 2);
}
