//! Peers that mean harm: whatever they say, a receiver and a source stay small, go on, and come to an end.

use super::wicked::{Trick, host};
use crate::kit::peer::{
    BEAT, Control, DATA, END, Fake, frame_at, hear, idle, message, parent, raw, want,
};
use crate::kit::{LONG, Place, options, says};
use spread::manifest::{Encoding, Entry, FRAME, Id, Page};
use spread::send::{self, State};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

/// KiB that a process may have grown by, whatever was done to it.
const GROWN: u64 = 64 << 10;

fn zstd(packed: &[u8], hash: [u8; 32]) -> Entry {
    Entry {
        encoding: Encoding::Zstd,
        stored: packed.len() as u32,
        stored_hash: *blake3::hash(packed).as_bytes(),
        hash,
    }
}

/// What takes its time because a time limit has to pass: all at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn those_who_are_waited_for_in_vain() {
    let mut all = tokio::task::JoinSet::new();
    all.spawn(words_that_are_wrong_are_noticed_at_once());
    all.spawn(an_offer_with_nothing_behind_it_ends());
    all.spawn(a_host_that_lies_is_left());
    all.spawn(children_that_never_read());
    while let Some(ended) = all.join_next().await {
        ended.unwrap();
    }
}

/// Looks whether this receiver still does what it is for.
async fn still_works(lab: &Place, receiver: SocketAddr) {
    let file = lab.file("after", 3);
    let source = lab.source(&file);
    let hosts = [("a", receiver)];
    let sent = send::send(source.transfer.clone(), options(&hosts, None), |_| {});
    let report = timeout(LONG, sent).await.unwrap().unwrap();
    assert_eq!(report[0].state, State::Done, "{report:?}");
    assert!(lab.has("a", &file));
}

/// A parent that always says this, after the page of the file or without.
async fn sayer(what: Vec<u8>) -> SocketAddr {
    parent(move |mut stream, _| {
        let what = what.clone();
        async move {
            let _ = stream.write_all(&what).await;
            // It hangs up when it has read enough.
            let _ = stream.read_u8().await;
        }
    })
    .await
}

async fn words_that_are_wrong_are_noticed_at_once() {
    let lab = Place::new();
    let mut victim = lab.start_receiver("a", "127.0.0.1:0", &[]);
    let before = victim.memory();
    let file = |name: &str| Fake::new(&lab.signer, name, vec![raw(1), raw(2)]);
    let pages = Page {
        first: 0,
        entries: vec![raw(1), raw(2)],
    };
    let other = Id([9; 16]);
    let foreign = Fake::sign(&lab.signer, &pages.bytes(other), other);
    let beyond = Page {
        first: 0,
        entries: vec![raw(1); 3],
    };
    let with_page = |name: &str, what: Vec<u8>| [file(name).page, what].concat();
    let id = file("beyond").header.id;
    let cases = [
        ("length", vec![255, 255, 255, DATA]),
        ("kind", message(99, b"x")),
        ("short", message(1, &[1, 2, 3])),
        ("lies", message(1, &[255; 100])),
        ("foreign", foreign),
        ("beyond", Fake::sign(&lab.signer, &beyond.bytes(id), id)),
        ("twice", with_page("twice", file("twice").page)),
        ("early", frame_at(0, 0)),
        ("inside", with_page("inside", frame_at(0, 7))),
        ("offset", with_page("offset", frame_at(0, u32::MAX))),
        ("frame", with_page("frame", frame_at(u32::MAX, 0))),
        ("end", with_page("end", message(END, b"no signature"))),
        ("more", {
            let piece = message(DATA, &vec![1; FRAME as usize - 1]);
            let again = message(DATA, &[1; 2]);
            with_page("more", [frame_at(0, 0), piece, again].concat())
        }),
    ];
    for (name, what) in cases {
        let from = sayer(what).await;
        let mut control = file(name).offer(victim.address, &[from]).await;
        let lost = control.hear("lost").await;
        assert!(
            lost.contains("does not keep to the protocol"),
            "{name}: {lost}"
        );
    }
    // All of them ended with their connections.
    for _ in 0..13 {
        victim.wait(|line| line.starts_with("failed for 10 s nobody had more of it"));
    }
    let grown = victim.memory() - before;
    println!("grown by {grown} KiB");
    assert!(grown < GROWN, "{grown} KiB");
    still_works(&lab, victim.address).await;
}

/// What would be a GiB has the room of a frame. That the manifest itself says so is found out, and named.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bomb_does_not_go_off() {
    let lab = Place::new();
    let mut packer = zstd::bulk::Compressor::new(3).unwrap();
    let bomb = packer.compress(&vec![0; 1 << 30]).unwrap();
    let honest = zstd::bulk::compress(&vec![3; FRAME as usize], 1).unwrap();
    let hash = *blake3::hash(&vec![3; FRAME as usize]).as_bytes();
    let mut victim = lab.start_receiver("a", "127.0.0.1:0", &[]);
    let before = victim.memory();
    for (name, packed) in [("bomb", bomb), ("short", honest[..20].to_vec())] {
        let fake = Fake::new(&lab.signer, name, vec![zstd(&packed, hash)]);
        let single = [frame_at(0, 0), message(DATA, &packed)].concat();
        let flow = [fake.page.clone(), single.clone()].concat();
        let from = parent(move |mut stream, line| {
            let what = match line.contains("\"single\":true") {
                true => single.clone(),
                false => flow.clone(),
            };
            async move {
                let _ = stream.write_all(&what).await;
                let beat = message(BEAT, &[]);
                while stream.write_all(&beat).await.is_ok() {
                    sleep(Duration::from_millis(50)).await;
                }
            }
        })
        .await;
        let mut control = fake.offer(victim.address, &[from]).await;
        let failed = control.hear("failed").await;
        assert!(failed.contains("from whomever it comes"), "{failed}");
    }
    let grown = victim.memory() - before;
    println!("grown by {grown} KiB");
    assert!(grown < GROWN, "{grown} KiB");
    victim.wait(|line| line.starts_with("failed "));
    still_works(&lab, victim.address).await;
}

/// A source that offers and then names nobody, or is not there any more, does not hold a receiver for ever.
async fn an_offer_with_nothing_behind_it_ends() {
    let lab = Place::new();
    let mut victim = lab.start_receiver("a", "127.0.0.1:0", &[]);
    let mut silent = Fake::new(&lab.signer, "silent", vec![raw(1)])
        .offer(victim.address, &[])
        .await;
    drop(
        Fake::new(&lab.signer, "gone", vec![raw(1)])
            .offer(victim.address, &[])
            .await,
    );
    let failed = silent.hear("failed").await;
    assert!(failed.contains("has named nobody"), "{failed}");
    for _ in 0..2 {
        victim.wait(|line| line.starts_with("failed "));
    }
}

/// The first host says that it has all, and plays a trick on the next one, which has it from the source then.
async fn behind(trick: Trick, file: &Path) -> String {
    let lab = Place::new();
    let (evil, mut is_in, asked) = host(trick).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hosts = [("evil", evil), ("a", listener.local_addr().unwrap())];
    let source = lab.source(file);
    let mut options = options(&hosts, None);
    options.patience = LONG;
    let sent = send::send(source.transfer.clone(), options, |_| {});
    // It is second, behind the one that lies.
    let after = async {
        is_in.wait_for(Option::is_some).await.unwrap();
        lab.receive_on(listener, "a");
    };
    let both = async { tokio::join!(sent, after) };
    let report = timeout(LONG, both).await.unwrap().0.unwrap();
    assert_eq!(report[1].state, State::Done, "{trick:?}: {report:#?}");
    assert!(lab.has("a", file));
    assert!(asked.load(Ordering::Relaxed) > 0, "{trick:?}: {report:#?}");
    let left = match trick {
        Trick::Dribble | Trick::Beats | Trick::Flood => Some("left evil: it sends next to nothing"),
        Trick::Over => Some("left evil: it has given up: all is over"),
        // What it said before is not believed any more after some frames.
        Trick::Spoil => Some("was spoilt by evil"),
        Trick::AllBad => None,
    };
    // Where there is much else to do, the one that lies may also be too slow with it.
    let slow = "left evil: it has said nothing";
    let named = left.is_none_or(|left| says(&report[1], left) || says(&report[1], slow));
    assert!(named, "{trick:?}: {report:#?}");
    let spoilt = |note: &&String| note.contains("was spoilt by evil");
    let spoilt = report[1].notes.iter().filter(spoilt).count();
    assert!(spoilt < 13, "{report:#?}");
    format!("{trick:?} {:?}", report[1].seconds)
}

async fn a_host_that_lies_is_left() {
    let lab = Place::new();
    let file = &lab.file("source", 8);
    let (a, b, c, d, e, f) = tokio::join!(
        behind(Trick::Dribble, file),
        behind(Trick::Beats, file),
        behind(Trick::Flood, file),
        behind(Trick::Over, file),
        behind(Trick::Spoil, file),
        behind(Trick::AllBad, file),
    );
    println!("{}", [a, b, c, d, e, f].join("\n"));
}

/// Connections that say nothing, half a line, or a line without end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_strangers_at_once() {
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = limit.maximum;
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
    let lab = Place::new();
    let victim = lab.start_receiver("a", "127.0.0.1:0", &[]);
    let before = victim.memory();
    let mut strangers = Vec::new();
    let mut most = 0;
    for number in 0..2000 {
        let mut stream = TcpStream::connect(victim.address).await.unwrap();
        let words = match number % 3 {
            0 => Vec::new(),
            1 => b"{\"want\":".to_vec(),
            _ => vec![b'x'; 60 << 10],
        };
        // It may have closed it by now.
        let _ = stream.write_all(&words).await;
        strangers.push(stream);
        if number % 100 == 0 {
            most = most.max(victim.open_files());
        }
    }
    most = most.max(victim.open_files());
    let grown = victim.memory() - before;
    println!("grown by {grown} KiB, {most} files");
    still_works(&lab, victim.address).await;
    assert!(most < 400, "{most} files");
    assert!(grown < GROWN, "{grown} KiB");
}

/// Children that ask for all of it and never read.
async fn children_that_never_read() {
    let lab = Place::new();
    let file = lab.file_of("source", 24, |_| 0);
    let victim = lab.start_receiver("a", "127.0.0.1:0", &[]);
    let source = lab.source(&file);
    let id = source.transfer.header.id;
    let hosts = [("a", victim.address)];
    let sent = send::send(source.transfer.clone(), options(&hosts, None), |_| {});
    assert_eq!(sent.await.unwrap()[0].state, State::Done);
    let (files, before) = (victim.open_files(), victim.memory());
    let mut children = Vec::new();
    for number in 0..300 {
        let mut child = TcpStream::connect(victim.address).await.unwrap();
        // Some ask for what there is not.
        let words = match number % 3 {
            0 => want(id, 1_000_000_000, u32::MAX),
            1 => want(id, 3, u32::MAX),
            _ => want(id, 0, 0),
        };
        let _ = child.write_all(&words).await;
        children.push(child);
    }
    let begin = Instant::now();
    let mut most = 0;
    // Those who asked for nothing that there is are told so, and only the others have to be waited for.
    loop {
        let open = victim.open_files();
        most = most.max(open);
        if begin.elapsed() > Duration::from_secs(1) && open < files + 80 {
            break;
        }
        assert!(begin.elapsed() < LONG, "{open} files");
        sleep(Duration::from_millis(50)).await;
    }
    let grown = victim.memory() - before;
    println!(
        "{most} files at most, grown by {grown} KiB, {:?}",
        begin.elapsed()
    );
    assert!(most < files + 256 + 192, "{most} files");
    assert!(grown < GROWN, "{grown} KiB");
    // There is room again, and whoever reads is served.
    let mut child = TcpStream::connect(victim.address).await.unwrap();
    child.write_all(&want(id, 0, 0)).await.unwrap();
    let mut got = 0;
    let mut buffer = vec![0; 1 << 16];
    while got < 24 << 20 {
        let read = timeout(LONG, child.read(&mut buffer)).await.unwrap();
        let count = read.unwrap();
        assert!(count > 0, "after {got} bytes");
        got += count;
    }
}

/// Receivers that flood the source with complaints, come and go, or never say a word; and a child that wants what is not
/// made yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_among_liars() {
    let lab = Place::new();
    let file = lab.file_of("source", 200, |_| 3);
    let accept = serde_json::json!({"accept": {"frames": 0}});
    let accepts = accept.clone();
    let flood = parent(move |stream, _| {
        let accept = accepts.clone();
        async move {
            let mut control = Control::new(stream);
            control.say(&accept).await;
            let why = format!("\u{1b}[31m{}", "x".repeat(30 << 10));
            for number in 0..3000 {
                let parent = format!("127.0.0.1:{}", number + 1);
                let said = match number % 2 {
                    0 => serde_json::json!({"lost": {"parent": parent, "why": format!("{number}{why}")}}),
                    _ => serde_json::json!({"spoilt": {"parent": parent, "frame": number}}),
                };
                control.say(&said).await;
            }
            control.say(&serde_json::json!({"failed": {"reason": why}})).await;
            control.drain().await;
        }
    })
    .await;
    let accepts = accept.clone();
    let fickle = parent(move |stream, _| {
        let accept = accepts.clone();
        async move { Control::new(stream).say(&accept).await }
    })
    .await;
    let accepts = accept.clone();
    let again = parent(move |stream, _| {
        let accept = accepts.clone();
        async move {
            let mut control = Control::new(stream);
            for _ in 0..100 {
                control.say(&accept).await;
            }
            control.drain().await;
        }
    })
    .await;
    let endless = parent(|mut stream, _| async move {
        while stream.write_all(&[b' '; 1 << 16]).await.is_ok() {}
    })
    .await;
    let mute = parent(|stream, _| async move { Control::new(stream).drain().await }).await;
    let honest = lab.start_receiver("honest", "127.0.0.1:0", &[]);
    let hosts = [
        ("flood", flood),
        ("fickle", fickle),
        ("again", again),
        ("endless", endless),
        ("mute", mute),
        ("honest", honest.address),
    ];
    let mut source = lab.start_source_for(&file, &hosts, 0, 2000);
    let pid = source.child.id();
    let mut memory = 0;
    let begin = Instant::now();
    // As long as it is there to be measured.
    source.hosts(|hosts| {
        memory = super::lab::memory(pid).unwrap_or(memory);
        hosts[5]["state"] == "done" && hosts[0]["state"] == "failed"
    });
    let report = source.report();
    println!("{memory} KiB, {:?}", begin.elapsed());
    assert_eq!(report[5]["state"], "done", "{report:#}");
    for (host, why) in [
        (0, "x"),
        (1, "it has closed the connection"),
        (2, "does not keep to the protocol"),
        (3, "a line that is too long"),
        (4, "it has not answered"),
    ] {
        assert_eq!(report[host]["state"], "failed", "{report:#}");
        let notes = report[host]["notes"].to_string();
        assert!(notes.contains(why), "{host}: {notes}");
    }
    let text = report.to_string();
    assert!(!text.contains("\\u001b"), "control characters");
    assert!(text.len() < 64 << 10, "{} bytes of report", text.len());
    assert!((1..192 << 10).contains(&memory), "{memory} KiB");
    assert!(lab.has("honest", &file));
}

/// It comes and goes, and there is never anything new: it was waited for as long as it did so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_comes_and_goes_is_given_up() {
    let lab = Place::new();
    let file = lab.file("source", 3);
    let fickle = parent(|stream, _| async move {
        let accept = serde_json::json!({"accept": {"frames": 0}});
        Control::new(stream).say(&accept).await;
    })
    .await;
    let source = lab.source(&file);
    let hosts = [("fickle", fickle)];
    let mut options = options(&hosts, None);
    options.patience = LONG * 2;
    let sent = send::send(source.transfer.clone(), options, |_| {});
    let report = timeout(LONG, sent).await.unwrap().unwrap();
    assert_eq!(report[0].state, State::Failed, "{report:#?}");
    let why = "it came and went 5 times for nothing";
    assert!(says(&report[0], why), "{report:#?}");
}

/// A child that asks for the end at once does not make the source prepare all of the file at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_can_have_yet_is_not_made() {
    let lab = Place::new();
    let file = lab.file("source", 8);
    let source = lab.source(&file);
    let id = source.transfer.header.id;
    let (host, mut found) = idle().await;
    let hosts = [("a", host)];
    let sent = send::send(source.transfer.clone(), options(&hosts, None), |_| {});
    let asked = async {
        let at = *found.wait_for(Option::is_some).await.unwrap();
        let mut child = TcpStream::connect(at.unwrap()).await.unwrap();
        let end = source.transfer.header.frames();
        child.write_all(&want(id, end, 0)).await.unwrap();
        // The first page comes.
        timeout(LONG, hear(&mut child)).await.unwrap().unwrap();
    };
    tokio::select! {
        report = sent => panic!("{report:?}"),
        () = asked => {}
    }
    let furthest = source.transfer.reached().furthest;
    assert!(furthest <= source.transfer.header.frames(), "{furthest}");
}
