//! Images are found, named and removed without building any.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use api::Progress;
use image::{Error, Images};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

/// What a build leaves, without the build.
fn image(state: &Path, id: &str, key: &str, layer: &str, built: u64) {
    let directory = state.join("images").join(id);
    fs::create_dir(&directory).unwrap();
    let manifest = serde_json::json!({
        "format": 1, "key": key, "id": id, "architecture": "amd64", "opkgs": [], "packages": [],
        "recipe": {"distribution": "debian", "release": "bookworm", "packages": [], "opkgs": [], "kernel": null, "mirror": null},
        "kernel_release": "6.1", "kernel_unpacked": true, "layers": [layer], "modules": [],
        "digests": {"rootfs": format!("d{id}")}, "sizes": {}, "files": 0, "built": built, "built_by": "test",
        "epoch": 0, "sources": [],
    });
    fs::write(directory.join("manifest.json"), manifest.to_string()).unwrap();
    for name in ["disk.raw", "kernel", "initrd"] {
        fs::write(directory.join(name), "x").unwrap();
    }
    fs::write(state.join("layers").join(format!("{layer}.tar")), "x").unwrap();
    symlink(format!("../images/{id}"), state.join("keys").join(key)).unwrap();
}

#[test]
fn named_listed_removed() {
    let state = tempfile::tempdir().unwrap();
    let images = Images::open(state.path()).unwrap();
    assert_eq!(images.list().unwrap(), []);
    image(state.path(), "aa11", "k1", "l1", 1);
    image(state.path(), "aa22", "k2", "l2", 2);
    image(state.path(), "bb33", "k3", "l3", 3);
    let ids = |images: &Images| -> Vec<String> {
        images.list().unwrap().into_iter().map(|i| i.id).collect()
    };
    assert_eq!(ids(&images), ["bb33", "aa22", "aa11"]);
    assert!(matches!(images.show("aa"), Err(Error::Ambiguous { ids, .. }) if ids.len() == 2));
    assert!(matches!(images.show("zz"), Err(Error::NoImage(_))));
    assert!(matches!(images.show(""), Err(Error::NoImage(_))));
    assert_eq!(images.show("k2").unwrap().id, "aa22");

    // A name goes to one image only, and cannot lead elsewhere.
    images.tag("aa11", "mpi").unwrap();
    images.tag("aa22", "mpi").unwrap();
    assert_eq!(images.show("mpi").unwrap().id, "aa22");
    assert!(matches!(
        images.tag("aa11", "../x"),
        Err(Error::BadTag { .. })
    ));

    let removal = images.removal(&Progress::default()).unwrap();
    assert_eq!(removal.remove("aa11", true).unwrap().paths.len(), 1);
    assert_eq!(ids(&images).len(), 3);
    removal.remove("aa11", false).unwrap();
    assert_eq!(ids(&images), ["bb33", "aa22"]);
    assert!(
        !state.path().join("keys/k1").exists()
            && fs::read_link(state.path().join("keys/k1")).is_err()
    );

    // Pruning keeps what is used and what has a name, with its layers; downloads go.
    let archive = state.path().join("cache/apt/archives/x_1_amd64.deb");
    fs::write(&archive, "x").unwrap();
    let would = removal.prune(|_| false, true).unwrap();
    assert_eq!(would.paths.len(), 4, "{would:?}");
    assert!(archive.exists());
    removal.prune(|i| i.id == "bb33", false).unwrap();
    assert_eq!(ids(&images), ["bb33", "aa22"]);
    assert!(!archive.exists());
    removal.prune(|_| false, false).unwrap();
    assert_eq!(ids(&images), ["aa22"]);
    let layers: Vec<_> = fs::read_dir(state.path().join("layers"))
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(layers, ["l2.tar"]);
    assert_eq!(fs::read_dir(state.path().join("tmp")).unwrap().count(), 0);
}

/// `image prune` looked at what is used, and `up` took an unused image into use before it was removed.
#[test]
fn nothing_is_removed_while_an_image_is_taken_into_use() {
    let state = tempfile::tempdir().unwrap();
    let images = Images::open(state.path()).unwrap();
    let hold = images.hold(&Progress::default()).unwrap();
    // Others may take images into use meanwhile.
    drop(images.hold(&Progress::default()).unwrap());
    let (tell, told) = std::sync::mpsc::channel();
    let waiting = {
        let (images, tell) = (images.clone(), tell.clone());
        std::thread::spawn(move || {
            let note = tell.clone();
            let progress = Progress::new(move |event| {
                note.send(format!("{event:?}")).unwrap();
            });
            drop(images.removal(&progress).unwrap());
            tell.send("removing".to_owned()).unwrap();
        })
    };
    let said = told.recv().unwrap();
    assert!(said.contains("`oscarv up` is at work"), "{said}");
    drop(hold);
    assert_eq!(told.recv().unwrap(), "removing");
    waiting.join().unwrap();
}

#[test]
fn a_state_that_cannot_be_written() {
    let state = tempfile::tempdir().unwrap();
    let place = state.path().join("file");
    fs::write(&place, "").unwrap();
    let error = Images::open(&place.join("state")).unwrap_err().to_string();
    assert!(error.contains("file/state"), "{error}");
    let images = state.path().join("private");
    Images::open(&images).unwrap();
    // Reachable for the user that QEMU becomes, closed otherwise.
    let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (mode(&images), mode(&images.join("images"))),
        (0o711, 0o711)
    );
    assert_eq!(
        (mode(&images.join("layers")), mode(&images.join("tmp"))),
        (0o700, 0o700)
    );
}
