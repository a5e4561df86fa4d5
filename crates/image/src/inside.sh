# What needs several programs in one namespace. Runs as root of its own mount and pid namespace; every mount made here
# is gone when it ends. Names and paths are arguments; nothing is ever put into this text.
set -eu
step=$1
root=$2
shift 2

# The shared cache of packages and lists takes the place of the image's own.
bind_cache() {
    mkdir -p "$root/var/cache/apt/archives" "$root/var/lib/apt/lists"
    mount --bind "$1/archives" "$root/var/cache/apt/archives"
    mount --bind "$1/lists" "$root/var/lib/apt/lists"
}

# What programs in the image may expect of a running system, and no more: no /sys, no devices of the machine.
enter() {
    mkdir -p "$root/proc" "$root/dev" "$root/run" "$root/tmp"
    mount -t proc proc "$root/proc"
    mount -t tmpfs -o mode=0755 tmpfs "$root/dev"
    for device in null zero full random urandom tty; do
        : >"$root/dev/$device"
        mount --bind "/dev/$device" "$root/dev/$device"
    done
    mkdir "$root/dev/pts" "$root/dev/shm"
    mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts "$root/dev/pts"
    mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
    ln -s pts/ptmx "$root/dev/ptmx"
    ln -s /proc/self/fd "$root/dev/fd"
    ln -s /proc/self/fd/0 "$root/dev/stdin"
    ln -s /proc/self/fd/1 "$root/dev/stdout"
    ln -s /proc/self/fd/2 "$root/dev/stderr"
    mount -t tmpfs -o mode=0755 tmpfs "$root/run"
    mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
    mkdir -m 0755 "$root/run/lock" "$root/run/oscarv"
    # Nothing is started in an image.
    printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
    chmod 0755 "$root/usr/sbin/policy-rc.d"
    # The builder's way to names; never part of the image.
    if [ -e /etc/resolv.conf ] && [ ! -L "$root/etc/resolv.conf" ]; then
        : >"$root/etc/resolv.conf"
        mount --bind /etc/resolv.conf "$root/etc/resolv.conf"
    fi
    unset TMPDIR
}

case $step in
bootstrap) # cache command...
    bind_cache "$1"
    shift
    "$@"
    ;;
apt) # cache configuration command...
    bind_cache "$1"
    enter
    cp "$2" "$root/run/oscarv/apt.conf"
    shift 2
    APT_CONFIG=/run/oscarv/apt.conf chroot "$root" "$@"
    ;;
chroot) # command...
    enter
    chroot "$root" "$@"
    ;;
stdin-tar) # archive: unpacked by the image's own tar, so that its links are followed inside it
    cp "$1" "$root/.oscarv-files.tar"
    chroot "$root" tar --extract --file=/.oscarv-files.tar --directory=/ --keep-directory-symlink \
        --same-owner --same-permissions --no-overwrite-dir
    rm -f "$root/.oscarv-files.tar"
    ;;
clean) # epoch start
    cd "$root"
    # Identity, the builder's traces, caches, logs, and what would differ from build to build.
    rm -rf ./dev/* ./dev/.[!.]* ./run/* ./tmp/* ./tmp/.[!.]* ./var/tmp/* ./proc/* ./sys/*
    rm -f ./usr/sbin/policy-rc.d ./etc/hostname ./etc/ssh/ssh_host_* ./etc/munge/munge.key
    [ -L ./etc/resolv.conf ] || rm -f ./etc/resolv.conf
    if [ -e ./etc ]; then : >./etc/machine-id; chmod 0644 ./etc/machine-id; fi
    rm -f ./var/lib/dbus/machine-id ./var/lib/systemd/random-seed ./var/lib/systemd/credential.secret
    rm -rf ./var/cache/apt/* ./var/lib/apt/lists/* ./var/cache/ldconfig/aux-cache ./var/cache/debconf/*-old
    mkdir -p ./var/cache/apt/archives/partial ./var/lib/apt/lists/partial
    chmod 0755 ./var/cache/apt/archives/partial ./var/lib/apt/lists/partial
    rm -f ./var/lib/dpkg/*-old ./etc/passwd- ./etc/group- ./etc/shadow- ./etc/gshadow- ./etc/subuid- ./etc/subgid-
    rm -f ./root/.bash_history ./root/.wget-hsts ./etc/.pwd.lock ./var/lib/dpkg/lock* ./var/lib/dpkg/triggers/Lock
    rm -f ./etc/apt/apt.conf.d/99mmdebstrap
    if [ -e ./etc/dpkg/dpkg.cfg.d/99mmdebstrap ]; then
        # What is left out stays left out; speed without safety was for the build only.
        grep ^path- ./etc/dpkg/dpkg.cfg.d/99mmdebstrap >./etc/dpkg/dpkg.cfg.d/90oscarv
        rm ./etc/dpkg/dpkg.cfg.d/99mmdebstrap
    fi
    find ./var/log -type f -delete
    # What this build made has the time of the release; what packages brought keeps its own.
    find . -xdev -newermt "@$2" -exec touch --no-dereference --date="@$1" {} +
    ;;
delete) # the paths that a layer says are gone, before the rest of it is unpacked
    cd "$root"
    tar --extract --file="$1" --occurrence=1 ./.oscarv-deleted
    xargs --null --no-run-if-empty rm -rf -- <./.oscarv-deleted
    rm -f ./.oscarv-deleted
    ;;
compare) # disk work: what the tree has otherwise than the disk of an earlier image
    mkdir "$2/before"
    cd "$2/before"
    debugfs -R 'rdump / .' "$1" >/dev/null 2>&1
    rm -rf ./lost+found
    diff --brief --recursive --no-dereference . "$root" || true
    # debugfs loses set-user-ID bits: modes would differ where they do not.
    tar --create --file=- . | tar --compare --file=- --directory="$root" | grep -v ': Mode differs$' || true
    ;;
*)
    echo "unknown step $step" >&2
    exit 2
    ;;
esac
