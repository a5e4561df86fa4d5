//! The client against a peer that is late, chatty, broken or gone.

use super::*;
use proptest::prelude::*;
use tokio::io::{AsyncBufReadExt, BufReader, DuplexStream, duplex};

const GREETING: &str = "{\"QMP\": {\"version\": {}, \"capabilities\": [\"oob\"]}}\n";
const LIMIT: Duration = Duration::from_secs(5);

/// A peer that greets well, answers the negotiation, and says `lines` when it is asked for something; `ID` stands for
/// the id of what was asked.
async fn peer(stream: DuplexStream, lines: Vec<u8>) {
    let (read, mut write) = tokio::io::split(stream);
    let mut read = BufReader::new(read).lines();
    write.write_all(GREETING.as_bytes()).await.unwrap();
    let mut first = true;
    while let Ok(Some(line)) = read.next_line().await {
        let request: Value = serde_json::from_str(&line).unwrap();
        let id = request["id"].to_string();
        let answer = if std::mem::take(&mut first) {
            format!("{{\"return\": {{}}, \"id\": {id}}}\n").into_bytes()
        } else {
            replace(&lines, b"ID", id.as_bytes())
        };
        if write.write_all(&answer).await.is_err() {
            return;
        }
        if answer.ends_with(b"BYE") {
            return;
        }
    }
}

fn replace(text: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.windows(from.len()).position(|w| w == from) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(to);
        rest = &rest[at + from.len()..];
    }
    out.extend_from_slice(rest);
    out
}

async fn against(lines: impl Into<Vec<u8>>, limit: Duration) -> Qmp<DuplexStream> {
    let (near, far) = duplex(64 << 10);
    tokio::spawn(peer(far, lines.into()));
    Qmp::new(near, limit).await.unwrap()
}

#[tokio::test]
async fn an_answer_among_events_and_noise() {
    let lines = "\n{\"event\": \"NEVER_HEARD_OF\", \"data\": {\"x\": 1}}\nnoise\n[1]\n\
                 {\"return\": 7, \"id\": 999}\n{\"return\": {\"status\": \"running\"}, \"id\": ID}\n";
    let mut qmp = against(lines, LIMIT).await;
    let answer = qmp.execute("query-status", json!({})).await.unwrap();
    assert_eq!(answer["status"], "running");
    let event = qmp.event().await.unwrap();
    assert_eq!(
        (event.name.as_str(), &event.data),
        ("NEVER_HEARD_OF", &json!({"x": 1}))
    );
    qmp.execute("query-status", json!({"a": 1})).await.unwrap();
}

#[tokio::test]
async fn refusals_say_what_qemu_said() {
    let lines =
        "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"no such thing\"}, \"id\": ID}\n";
    let error = against(lines, LIMIT)
        .await
        .execute("dance", json!({}))
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "QEMU refused dance: no such thing");
}

#[tokio::test]
async fn a_peer_that_closes() {
    let error = against("{\"retBYE", LIMIT)
        .await
        .execute("x", json!({}))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Closed), "{error}");
}

#[tokio::test]
async fn a_peer_that_answers_late_may_still_be_used() {
    let (near, mut far) = duplex(4096);
    let peer = tokio::spawn(async move {
        far.write_all(GREETING.as_bytes()).await.unwrap();
        let (read, mut write) = tokio::io::split(far);
        let mut read = BufReader::new(read).lines();
        let mut held = Vec::new();
        // Answers the first (the negotiation); holds the second, half of it said, until the third is asked.
        for number in 0..3 {
            let line = read.next_line().await.unwrap().unwrap();
            let request: Value = serde_json::from_str(&line).unwrap();
            let mut answer = json!({"return": number, "id": request["id"]})
                .to_string()
                .into_bytes();
            answer.push(b'\n');
            if number == 1 {
                held = answer.split_off(5);
            }
            write
                .write_all(&std::mem::take(&mut held_first(number, &mut held)))
                .await
                .unwrap();
            write.write_all(&answer).await.unwrap();
        }
        read.next_line().await.unwrap();
    });
    let mut qmp = Qmp::new(near, Duration::from_millis(50)).await.unwrap();
    let error = qmp.execute("slow", json!({})).await.unwrap_err();
    assert!(matches!(error, Error::Late(_)), "{error}");
    assert_eq!(qmp.execute("fast", json!({})).await.unwrap(), json!(2));
    drop(qmp);
    peer.await.unwrap();
}

/// What is held goes out before the third answer.
fn held_first(number: u32, held: &mut Vec<u8>) -> Vec<u8> {
    if number == 2 {
        std::mem::take(held)
    } else {
        Vec::new()
    }
}

#[tokio::test]
async fn long_lines_are_taken_and_endless_ones_are_not() {
    let long = format!("{{\"return\": \"{}\", \"id\": ID}}\n", "x".repeat(1 << 20));
    let answer = against(long, LIMIT)
        .await
        .execute("x", json!({}))
        .await
        .unwrap();
    assert_eq!(answer.as_str().unwrap().len(), 1 << 20);
    let endless = vec![b'x'; LONGEST + (1 << 20)];
    let error = against(endless, LIMIT)
        .await
        .execute("x", json!({}))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Nonsense(_)), "{error}");
}

#[tokio::test]
async fn somebody_else_on_the_socket() {
    let (near, mut far) = duplex(4096);
    far.write_all(b"{\"hello\": \"I am a web server\"}\n")
        .await
        .unwrap();
    assert!(matches!(
        Qmp::new(near, LIMIT).await,
        Err(Error::Nonsense(_))
    ));
    let (near, _far) = duplex(4096);
    let silent = Qmp::new(near, Duration::from_millis(20)).await;
    assert!(matches!(silent, Err(Error::Late(_))));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever bytes come: an answer or an error, in time, and no more memory than a line.
    #[test]
    fn any_bytes(mut bytes in prop::collection::vec(any::<u8>(), 0..4096), ends in any::<bool>()) {
        if ends {
            bytes.extend_from_slice(b"\n{\"return\": 5, \"id\": ID}\n");
        } else {
            bytes.extend_from_slice(b"BYE");
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let result = runtime.block_on(async {
            against(bytes, LIMIT).await.execute("x", json!({})).await
        });
        match result {
            Ok(value) => prop_assert!(ends && value == 5),
            Err(Error::Closed) => prop_assert!(!ends),
            Err(Error::Nonsense(_)) => {}
            Err(other) => prop_assert!(false, "{other}"),
        }
    }
}
