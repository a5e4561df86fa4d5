//! Files that mean harm, and files that only look so: each is refused with a message that is right, fast, and without
//! a panic. The parsers are fuzzed besides (`fuzz/` at the top of the repository, and tests/properties.rs).

#![allow(clippy::unwrap_used, reason = "a test may end so")]

use profile::{cluster_bytes, vm_bytes, vms_bytes};
use std::time::{Duration, Instant};

/// What is said of it: by every reader the same way, and at once.
fn refused(bytes: impl AsRef<[u8]>) -> String {
    let bytes = bytes.as_ref();
    let begun = Instant::now();
    let errors = vms_bytes(bytes, "x").unwrap_err();
    assert!(vm_bytes(bytes, "x").is_err());
    assert!(cluster_bytes(bytes, "x").is_err());
    let took = begun.elapsed();
    let limit = Duration::from_secs(if cfg!(debug_assertions) { 60 } else { 5 });
    assert!(took < limit, "{took:?}");
    errors.to_string()
}

#[track_caller]
fn refused_for(bytes: impl AsRef<[u8]>, said: &str) {
    let told = refused(bytes);
    assert!(told.contains(said), "{told}");
}

#[test]
fn entity_bombs() {
    let mut bomb = "<!DOCTYPE profile [<!ENTITY a \"ha\">".to_owned();
    for (name, before) in ('b'..='z').zip('a'..) {
        let ten = format!("&{before};").repeat(10);
        bomb += &format!("<!ENTITY {name} \"{ten}\">");
    }
    bomb += "]><profile><name>&z;</name></profile>";
    refused_for(&bomb, "x:1:20: error: a file may not define entities");
    let long = format!(
        "<!DOCTYPE profile [<!ENTITY a \"{}\">]><profile>{}</profile>",
        "a".repeat(100_000),
        "&a;".repeat(100_000)
    );
    refused_for(&long, "a file may not define entities");
}

#[test]
fn external_entities() {
    for declared in [
        "<!ENTITY x SYSTEM \"file:///etc/passwd\">",
        "<!ENTITY x SYSTEM \"http://127.0.0.1:1/x\">",
        "<!ENTITY % x SYSTEM \"http://127.0.0.1:1/x.dtd\"> %x;",
        "<!ENTITY x PUBLIC \"\" \"/dev/zero\">",
    ] {
        let text = format!("<!DOCTYPE profile [{declared}]><profile><name>&x;</name></profile>");
        refused_for(&text, "a file may not define entities");
    }
    refused_for(
        "<profile><name>&x;</name></profile>",
        "not XML: unknown entity reference 'x'",
    );
    refused_for("<!DOCTYPE a [%x;]><profile/>", "error: ");
}

/// A DOCTYPE is a name, and nothing is fetched for it: the address here would never answer.
#[test]
fn a_doctype_is_never_fetched() {
    let text = "<!DOCTYPE profile PUBLIC \"\" \"http://192.0.2.1/x.dtd\"><profile><name>a</name><image>/a</image></profile>";
    assert!(vm_bytes(text.as_bytes(), "x").is_ok());
}

#[test]
fn deep_nesting() {
    for open in ["<profile>", "<vm>", "<a b='>'>", "<a\n>"] {
        let close = format!("</{}>", open[1..].split([' ', '\n', '>']).next().unwrap());
        let text = open.repeat(100_000) + &close.repeat(100_000);
        refused_for(&text, "error: more than 32 elements in one another");
        refused_for(
            open.repeat(100_000),
            "error: more than 32 elements in one another",
        );
    }
    refused("name = ".to_owned() + &"[".repeat(100_000));
    refused("name = ".to_owned() + &"{a=".repeat(100_000));
    refused("[".to_owned() + &"a.".repeat(100_000) + "a]");
}

/// Two thousand namespaces around many elements with one of their own each: half a minute for a quarter of a megabyte.
#[test]
fn namespaces() {
    let (mut open, mut close) = (String::new(), String::new());
    for depth in 0..30 {
        let declared = (0..60).map(|n| format!(" xmlns:a{depth}x{n}='b'"));
        open += &format!("<vm{}>", declared.collect::<String>());
        close += "</vm>";
    }
    let inner = "<a xmlns:b='c'/>".repeat(20_000);
    refused_for(open + &inner + &close, "a file has at most 16 namespaces");
    let unused = "<vm xmlns='' xmlns:a='b'><name xmlns=''>a</name><disk path='a.raw'/></vm>";
    assert!(vm_bytes(unused.as_bytes(), "x").is_ok());
}

#[test]
fn wide_files() {
    let attributes: String = (0..50_000).map(|n| format!(" a{n}=\"\"")).collect();
    refused_for(
        format!("<vm{attributes}/>"),
        "an element has more than 64 attributes",
    );
    refused(format!("<vm>{}</vm>", "<x/>".repeat(100_000)));
    refused(format!(
        "<profile>{}</profile>",
        "<name>a</name>".repeat(50_000)
    ));
    refused(format!(
        "<vm name=\"a\">{}</vm>",
        "<disk path=\"a\" format=\"raw\"/>".repeat(100_000)
    ));
    refused(format!("<vm>{}<nic/></vm>", "<no-nic/>".repeat(50_000)));
    refused("<".repeat(100_000));
    refused("<!".repeat(100_000));
    refused("<!--".repeat(100_000));
    refused(format!("<vm {}", "=".repeat(100_000)));
    refused(format!("<{}>", "a".repeat(100_000)));
    refused(format!("<vm {}=\"\"/>", "é".repeat(100_000)));
    refused(format!("<vm><!--{}--></vm>", "-".repeat(100_000)));
}

#[test]
fn large_files() {
    let large = vec![b' '; profile::MAX_BYTES + 1];
    refused_for(&large, "the file has more than 16 MiB");
    let mut large = vec![0xff; profile::MAX_BYTES + 10];
    large[0] = b'<';
    refused_for(&large, "the file has more than 16 MiB");
}

#[test]
fn other_encodings() {
    refused_for(
        b"<vm><name>\xe9</name></vm>",
        "the file is not UTF-8 text: byte 0xe9 at offset 10",
    );
    refused_for(
        b"name = \"\xc3\x28\"",
        "the file is not UTF-8 text: byte 0xc3 at offset 8",
    );
    refused_for(b"name = \"\xed\xa0\x80\"", "the file is not UTF-8 text");
    let utf16: Vec<u8> = "<vm/>".encode_utf16().flat_map(u16::to_le_bytes).collect();
    refused_for(
        [&b"\xff\xfe"[..], &utf16].concat(),
        "the file is UTF-16, not UTF-8 text",
    );
    refused_for(
        b"\xfe\xff\0<\0v\0m\0/\0>",
        "the file is UTF-16, not UTF-8 text",
    );
    refused_for(&utf16, "not XML: a NUL byte");
    refused_for(
        "<?xml version='1.0' encoding='ISO-8859-1'?><vm/>",
        "x:1:31: error: the encoding of a file is UTF-8, no other",
    );
    let marked = "\u{feff}<vm name=\"a\"><disk path=\"a.raw\"/></vm>";
    assert!(
        vm_bytes(marked.as_bytes(), "x").is_ok(),
        "a mark of UTF-8 does no harm"
    );
    let declared =
        "<?xml version=\"1.0\" encoding=\"utf-8\"?><vm name=\"a\"><disk path=\"a.raw\"/></vm>";
    assert!(vm_bytes(declared.as_bytes(), "x").is_ok());
}

#[test]
fn nuls_and_control_characters() {
    refused_for(
        b"<vm><name>a\0</name></vm>",
        "x:1:12: error: not XML: a NUL byte",
    );
    refused(b"name = \"a\0\"");
    refused(b"\0");
    refused("<vm><name>\u{1}</name></vm>");
    refused("<vm><name>&#0;</name></vm>");
    refused("<vm><name>&#27;[31m</name></vm>");
    refused_for(
        "name = \"a\"\n[[disk]]\npath = \"a\\u001b.raw\"",
        "has a control character",
    );
    refused_for(
        "name = \"a\"\n[boot]\nkernel = \"k\"\narguments = \"a\\nb\"",
        "an argument has the control character '\\n'",
    );
}

fn names() -> Vec<String> {
    let mut names: Vec<String> = [
        "",
        " ",
        ".",
        "..",
        "../a",
        "a/b",
        "/a",
        "a b",
        "-a",
        "--help",
        "a-",
        "a'b",
        "a\"b",
        "a`b",
        "$(a)",
        "a;b",
        "a&b",
        "A",
        "0a",
        "a.b",
        "a_b",
        "a,b",
        "a=b",
        "a:b",
        "a%b",
        "a\\b",
        "a*",
        "~a",
        "é",
        "аdmin",
        "ａ",
        "a\u{200b}",
        "a\u{202e}b",
        "a\u{301}",
        "İ",
        "ſ",
        "a\nb",
        "a\tb",
    ]
    .map(str::to_owned)
    .to_vec();
    names.push("a".repeat(64));
    names.push("a".repeat(300));
    names
}

fn escaped(text: &str) -> String {
    let text = text
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('"', "&quot;");
    text.replace('\n', "&#10;").replace('\t', "&#9;")
}

#[test]
fn names_of_all_kinds() {
    for name in names() {
        let toml = format!("name = {name:?}\n[[disk]]\npath = \"a.raw\"").replace("\\u{", "\\U{");
        // Rust writes some characters otherwise than TOML.
        let toml = if toml.contains("\\U{") {
            format!("name = '''{name}'''\n[[disk]]\npath = \"a.raw\"")
        } else {
            toml
        };
        let told = refused(&toml).to_string();
        assert!(
            told.contains("cannot be the name of a VM"),
            "{name:?}: {told}"
        );
        let escaped = escaped(&name);
        let xml = format!("<vm><name>{escaped}</name><disk path=\"a.raw\"/></vm>");
        let old = format!("<profile><name>{escaped}</name><image>/a</image></profile>");
        for text in [xml, old] {
            assert!(
                refused(&text).contains("cannot be the name of a VM"),
                "{name:?}"
            );
        }
    }
    let nics = |nic: &str| format!("name = \"a\"\n[[disk]]\npath = \"a.raw\"\n[[nic]]\n{nic}");
    for name in [
        "",
        "a/b",
        "-a",
        "a b",
        "a\u{e9}",
        "abcdefghijklmnop",
        "..",
        "a;b",
    ] {
        let bridge = nics(&format!("kind = \"bridged\"\nbridge = \"{name}\""));
        refused_for(bridge, "cannot be the name of a bridge");
    }
    for name in ["", "a/b", "-a", "..", "A"] {
        let network = nics(&format!("kind = \"private\"\nnetwork = \"{name}\""));
        refused_for(network, "cannot be the name of a network");
    }
}

#[test]
fn macs() {
    let with = |macs: &[&str]| {
        let nics: String = macs
            .iter()
            .map(|mac| format!("[[nic]]\nmac = \"{mac}\"\n"))
            .collect();
        format!("name = \"a\"\n[[disk]]\npath = \"a.raw\"\n{nics}")
    };
    for (mac, said) in [
        ("01:00:5e:00:00:01", "a multicast address"),
        ("ff:ff:ff:ff:ff:ff", "the broadcast address"),
        ("00:00:00:00:00:00", "all zeros"),
        ("52:54:00:12:34", "six pairs"),
        ("52:54:00:12:34:56:78", "six pairs"),
        ("52:54:00:12:34:5g", "six pairs"),
        ("5254.0012.3456", "six pairs"),
        ("52:54:00:12:34:5", "six pairs"),
        ("", "six pairs"),
        ("random", "six pairs"),
        ("+2:54:00:12:34:56", "six pairs"),
    ] {
        refused_for(with(&[mac]), said);
        refused_for(
            format!(
                "<profile><name>a</name><image>/a</image><nic1><mac>{mac}</mac></nic1></profile>"
            ),
            said,
        );
    }
    refused_for(
        with(&["52:54:00:00:00:01", "52-54-00-00-00-01"]),
        "two NICs have the MAC",
    );
    assert!(
        vm_bytes(
            with(&["52:54:00:00:00:01", "52:54:00:00:00:02"]).as_bytes(),
            "x"
        )
        .is_ok()
    );
}

#[test]
fn sizes() {
    let memory =
        |size: &str| format!("name = \"a\"\nmemory = \"{size}\"\n[[disk]]\npath = \"a.raw\"");
    for (size, said) in [
        ("0", "a size needs a unit"),
        ("0M", "a size must be more than zero"),
        ("-1M", "is not a memory size"),
        ("1.5G", "is not a memory size"),
        ("512", "hint: write memory = \"512M\" or memory = \"512G\""),
        ("512X", "is not a unit of size"),
        ("99999999T", "less than 1 EiB"),
        ("18446744073709551617M", "is not a memory size"),
        ("100T", "100T of memory is too much"),
        ("", "is not a memory size"),
        ("1e3M", "is not a memory size"),
        ("٣M", "is not a memory size"),
    ] {
        refused_for(memory(size), said);
    }
    let xml = "<vm><name>a</name><memory>512</memory><disk path=\"a.raw\"/></vm>";
    refused_for(
        xml,
        "hint: write <memory>512M</memory> or <memory>512G</memory>",
    );
    refused_for(
        "name = \"a\"\n[[disk]]\npath = \"a.raw\"\nsize = \"2000P\"",
        "error",
    );
    refused_for(
        "name = \"a\"\n[[disk]]\npath = \"a.raw\"\nsize = \"2000T\"",
        "of disk is too much",
    );
    for cpus in ["0", "-1", "256", "99999999999999999999"] {
        refused(format!(
            "name = \"a\"\ncpus = {cpus}\n[[disk]]\npath = \"a.raw\""
        ));
        refused(format!(
            "<vm><name>a</name><cpus>{cpus}</cpus><disk path=\"a.raw\"/></vm>"
        ));
    }
}

/// A terminal that shows a message is not commanded by the file.
#[test]
fn messages_are_harmless() {
    for text in [
        "<vm><\u{9b}a/></vm>",
        "<vm a\u{202e}=\"\"/>",
        "<profile><name>\u{85}</name></profile>",
        "\u{7f} = 1",
    ] {
        let told = refused(text);
        assert!(
            told.chars().all(|c| c == '\n' || !c.is_control()),
            "{told:?}"
        );
    }
}

/// Each of a million errors was kept, with its advice, until the file had been read: a gigabyte, and a minute.
#[test]
fn a_million_errors_are_counted_not_kept() {
    let attributes: String = (0..60).map(|n| format!(" a{n}=\"\"")).collect();
    let text = format!("<vm>{}</vm>", format!("<disk{attributes}/>").repeat(2_000));
    let told = refused(&text);
    assert!(told.contains("errors more"));
}

/// What goes to the hypervisor as it stands has a bound.
#[test]
fn extra_arguments_are_bounded() {
    let of = |extra: &str| {
        let text = format!("name = \"a\"\nextra = [{extra}]\n[[disk]]\npath = \"a.raw\"\n");
        profile::vm(&text, "x")
    };
    let errors = of(&"\"-x\",".repeat(257)).unwrap_err().to_string();
    assert!(
        errors.contains("at most 256 extra arguments, not 257"),
        "{errors}"
    );
    let long = format!("{:?}", "x".repeat(4096));
    let errors = of(&long).unwrap_err().to_string();
    assert!(errors.contains("at most 4095 bytes"), "{errors}");
    assert!(of(&"\"-x\",".repeat(256)).is_ok());
}
