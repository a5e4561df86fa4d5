//! What holds for every VM and every text: a VM that is written comes back from either form, nothing panics, and the
//! places in messages are true.

#![allow(clippy::unwrap_used, reason = "a test may end so")]

use api::{Mac, MiB, Name};
use profile::*;
use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

/// One line, of any characters that a profile can hold.
fn line() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z =,'\"<>&;#]{0,20}", "[^\\p{Cc}\u{fffe}\u{ffff}]{0,12}"]
}

fn path() -> impl Strategy<Value = std::path::PathBuf> {
    prop_oneof![
        "[a-zA-Z0-9_./ <&\"-]{1,20}",
        "[^\\p{Cc}\u{fffe}\u{ffff}]{1,9}"
    ]
    .prop_filter("refused", |path| {
        path.trim() == path && !path.contains("://")
    })
    .prop_map(Into::into)
}

fn text() -> impl Strategy<Value = String> {
    (
        select(vec!["#cloud-config", "#!/bin/sh"]),
        vec(
            prop_oneof![
                line(),
                select(vec![
                    "\n", "\r", "\r\n", "\t", "\"\"\"", "]]>", "\n\n", "  "
                ])
                .prop_map(str::to_owned)
            ],
            0..8,
        ),
    )
        .prop_map(|(first, rest)| first.to_owned() + &rest.concat())
}

fn name() -> impl Strategy<Value = Name> {
    "[a-z]([a-z0-9-]{0,20}[a-z0-9])?".prop_map(|name| Name::new(&name).unwrap())
}

fn size(most: u64) -> impl Strategy<Value = MiB> {
    prop_oneof![1..most, (1..most.div_ceil(1024)).prop_map(|g| g * 1024)].prop_map(MiB)
}

fn link() -> impl Strategy<Value = Link> {
    let word = "[a-zA-Z0-9][a-zA-Z0-9._-]{0,14}";
    prop_oneof![
        Just(Link::Nat),
        Just(Link::Unplugged),
        word.prop_map(|bridge| Link::Bridged { bridge }),
        name().prop_map(|n| Link::Private { network: n.into() }),
        name().prop_map(|n| Link::HostOnly { network: n.into() }),
        (word, 1u16..=4094).prop_map(|(bridge, tag)| Link::Vlan { bridge, tag }),
    ]
}

fn disk() -> impl Strategy<Value = Disk> {
    let format = select(vec![
        DiskFormat::Raw,
        DiskFormat::Qcow2,
        DiskFormat::Vmdk,
        DiskFormat::Vdi,
    ]);
    let bus = select(vec![Bus::Virtio, Bus::Scsi, Bus::Sata, Bus::Ide]);
    (
        path(),
        format,
        bus,
        any::<[bool; 2]>(),
        option::of(size(1 << 30)),
    )
        .prop_map(|(path, format, bus, [cdrom, read_only], size)| {
            let disk = Disk {
                path,
                format,
                bus,
                medium: Medium::Disk,
                read_only,
                size,
            };
            match cdrom {
                false => disk,
                true => Disk {
                    format: DiskFormat::Raw,
                    bus: if bus == Bus::Virtio { Bus::Sata } else { bus },
                    medium: Medium::Cdrom,
                    read_only: true,
                    size: None,
                    ..disk
                },
            }
        })
}

/// Disks that fit together: no file twice, at most four on IDE.
fn disks() -> impl Strategy<Value = Vec<Disk>> {
    vec(disk(), 0..6).prop_map(|disks| {
        let mut kept: Vec<Disk> = Vec::new();
        for disk in disks {
            let ide = kept.iter().filter(|d| d.bus == Bus::Ide).count();
            if kept.iter().all(|d| d.path != disk.path) && (disk.bus != Bus::Ide || ide < 4) {
                kept.push(disk);
            }
        }
        kept
    })
}

fn nics() -> impl Strategy<Value = Vec<Nic>> {
    let model = select(vec![NicModel::Virtio, NicModel::E1000]);
    vec((any::<[u8; 5]>(), model, link()), 0..5).prop_map(|nics| {
        let nics = nics.into_iter().enumerate();
        nics.map(|(at, ([a, b, c, d, _], model, link))| Nic {
            mac: Mac::new([0x52, a, b, c, d, at as u8]).unwrap(),
            model,
            link,
        })
        .collect()
    })
}

prop_compose! {
    fn any_vm()(
        (name, backend) in (name(), select(vec![Backend::Auto, Backend::Qemu, Backend::Kvm, Backend::Fake])),
        (sockets, cores, threads, topology, model) in (1u16..4, 1u16..5, 1u16..3, any::<bool>(), option::of("[a-zA-Z0-9][a-zA-Z0-9._-]{0,20}")),
        (memory, split, uefi, display, huge_pages) in (size(1 << 20), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()),
        (disks, nics) in (disks(), nics()),
        (direct, kernel, initrd, arguments) in (any::<bool>(), path(), option::of(path()), line()),
        order in Just(vec![BootDevice::Disk, BootDevice::Cdrom, BootDevice::Network]).prop_shuffle(),
        (user_data, network_config, init) in (text(), option::of(text()), any::<bool>()),
        (devices, extra) in (btree_set((0u16.., 0u8.., 0u8..32, 0u8..8), 0..3), vec(line(), 0..4)),
    ) -> Vm {
        let cpus = sockets * cores * threads;
        let huge = huge_pages && memory.0 % 2 == 0;
        let has = |device: &BootDevice| match device {
            BootDevice::Disk => disks.iter().any(|d| d.medium == Medium::Disk),
            BootDevice::Cdrom => disks.iter().any(|d| d.medium == Medium::Cdrom),
            BootDevice::Network => !nics.is_empty(),
        };
        let order: Vec<_> = order.into_iter().filter(has).collect();
        let direct = direct || order.is_empty();
        let boot = match direct {
            true => Boot::Kernel { kernel, initrd, arguments },
            false => Boot::Firmware { order },
        };
        let mut vm = Vm::new(name, backend, cpus, memory, boot);
        vm.cpu = Cpu { model, topology: topology.then_some(Topology { sockets, cores, threads }) };
        vm.huge_pages = huge;
        if split && cpus > 1 && memory.0 > 1 {
            // Every other CPU, so that there is something to list.
            let (even, odd) = (0..cpus).partition(|cpu| cpu % 2 == 0);
            vm.numa = vec![
                NumaNode { cpus: even, memory: MiB(1) },
                NumaNode { cpus: odd, memory: MiB(memory.0 - 1) },
            ];
        }
        vm.firmware = if uefi && !direct { Firmware::Uefi } else { Firmware::Bios };
        vm.display = if display { Display::Vnc } else { Display::None };
        vm.disks = disks;
        vm.nics = nics;
        vm.cloud_init = init.then_some(CloudInit { user_data, network_config });
        vm.devices = devices.into_iter().map(|(domain, bus, slot, function)| {
            format!("{domain:04x}:{bus:02x}:{slot:02x}.{function}")
        }).collect();
        vm.extra = extra;
        vm
    }
}

fn comes_back(written: &str, value: &Vm) -> Result<Vm, TestCaseError> {
    match vm(written, "written") {
        Ok(again) => {
            prop_assert_eq!(&again.value, value, "{}", written);
            prop_assert_eq!(
                again.notes,
                [],
                "a written profile says everything: {}",
                written
            );
            Ok(again.value)
        }
        Err(errors) => Err(TestCaseError::fail(format!("{errors}\n---\n{written}"))),
    }
}

/// Whatever is said of it has true places and no control characters; what is taken can be written and comes back.
fn judged(text: &str) -> Result<(), TestCaseError> {
    match vms(text, "x") {
        Ok(checked) => {
            for vm in &checked.value {
                comes_back(&vm_to_toml(vm).unwrap(), vm)?;
                comes_back(&vm_to_xml(vm).unwrap(), vm)?;
            }
        }
        Err(errors) => {
            prop_assert!(errors.len() > 0, "refused without a word");
            for error in &errors {
                prop_assert!(error.start <= error.end && error.end <= text.len());
                let before = &text[..error.start];
                let line = before.rsplit('\n').next().unwrap();
                prop_assert_eq!(error.line, before.matches('\n').count() + 1);
                prop_assert_eq!(error.column, line.chars().count() + 1);
            }
            let said = errors.to_string();
            prop_assert!(
                said.chars().all(|c| c == '\n' || !c.is_control()),
                "{:?}",
                said
            );
        }
    }
    Ok(())
}

const LIBV3M: &str = r#"<?xml version="1.0"?>
<!DOCTYPE profile PUBLIC "" "/etc/v3m/v3m_profile.dtd">
<profiles><profile>
  <name>test</name><type>Kvm</type><cpu>2</cpu><memory>256</memory>
  <image size="500">file:///vm/test.img</image>
  <virtual_disks><virtual_disk id="hdb">/vm/b.img</virtual_disk></virtual_disks>
  <cdrom>/dev/cdrom</cdrom>
  <nic1><type option="br0">BRIDGED_TAP</type><mac>00:02:03:04:05:06</mac></nic1>
  <nic2><type>VLAN</type></nic2>
</profile></profiles>
"#;

/// Pieces that break things, for a place in a good file.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        select(vec![
            "<",
            ">",
            "&",
            "&amp;",
            "&#0;",
            "&x;",
            "]]>",
            "<![CDATA[",
            "<!--",
            "-->",
            "<!DOCTYPE a [",
            "<!ENTITY a 'b'>",
            "<?a?>",
            "'",
            "\"",
            "=",
            "/",
            "/>",
            "</",
            "<a>",
            "<no-nic/>",
            "<nic/>",
            "\n",
            "\r",
            "\t",
            "\0",
            "\u{feff}",
            "xmlns='a'",
            "a:b",
            "é",
            "\u{202e}",
            "0",
            "-",
            "M",
            "[",
            "]",
            "[[disk]]",
            "{",
            "}",
            "#",
            "\"\"\"",
        ])
        .prop_map(str::to_owned),
        any::<char>().prop_map(String::from),
    ]
}

/// A good file, with pieces put in and parts taken out.
fn mutated(text: String, changes: Vec<(prop::sample::Index, usize, String)>) -> String {
    let mut characters: Vec<char> = text.chars().collect();
    for (at, removed, piece) in changes {
        let at = at.index(characters.len() + 1);
        let end = (at + removed).min(characters.len());
        characters.splice(at..end, piece.chars());
    }
    characters.into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn there_and_back_is_the_same(vm in any_vm()) {
        let toml = vm_to_toml(&vm).unwrap();
        let from_toml = comes_back(&toml, &vm)?;
        let xml = vm_to_xml(&from_toml).unwrap();
        let from_xml = comes_back(&xml, &vm)?;
        prop_assert_eq!(vm_to_toml(&from_xml).unwrap(), toml);
    }

    #[test]
    fn good_files_that_were_changed(
        vm in any_vm(),
        form in 0..3,
        changes in vec((any::<prop::sample::Index>(), 0usize..6, piece()), 1..5),
    ) {
        let text = match form {
            0 => vm_to_toml(&vm).unwrap(),
            1 => vm_to_xml(&vm).unwrap(),
            _ => LIBV3M.to_owned(),
        };
        judged(&mutated(text, changes))?;
    }

    #[test]
    fn pieces_of_xml(pieces in vec(piece(), 0..30)) {
        judged(&format!("<{}", pieces.concat()))?;
        judged(&format!("<vm>{}</vm>", pieces.concat()))?;
    }

    #[test]
    fn any_bytes(bytes in vec(any::<u8>(), 0..200)) {
        for bytes in [bytes.clone(), [b"<vm>", &bytes[..]].concat()] {
            if let Err(errors) = vms_bytes(&bytes, "x") {
                prop_assert!(!errors.to_string().is_empty());
            }
        }
    }
}

#[test]
fn what_is_internal_is_not_written() {
    let checked = vm("name = \"a\"\n[[disk]]\npath = \"a.raw\"", "x").unwrap();
    let mut vm = checked.value;
    vm.nics[0].link = Link::Network {
        directory: "/x".into(),
        port: "p".into(),
    };
    assert_eq!(vm_to_toml(&vm), Err(Unwritable::ClusterNetwork { nic: 1 }));
    vm.nics.clear();
    vm.channels.push(Channel {
        name: "c".into(),
        log: "l".into(),
    });
    assert_eq!(vm_to_xml(&vm), Err(Unwritable::Channels));
}
