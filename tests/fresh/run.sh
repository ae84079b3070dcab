#!/usr/bin/env bash
# Runs the README's commands on a machine that has nothing: a minimal Debian root made with
# debootstrap, with python3 and a CA bundle as the only additions. Root is needed for the chroot.
#
#   tests/fresh/run.sh [TASK ...]      tasks of bootstrap.py; default: demo test
#   HOOKPROBE_RELEASE=trixie ...       another Debian release, and so another Python
set -euo pipefail
here=$(cd "$(dirname "$0")/../.." && pwd)
tasks=("$@")
[ ${#tasks[@]} -gt 0 ] || tasks=(demo test)

if [ "$(id -u)" != 0 ]; then
  echo "fresh: root is needed for a chroot" >&2
  exit 1
fi
if ! command -v debootstrap >/dev/null; then
  apt-get -q update >/dev/null
  DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends debootstrap >/dev/null
fi

root=$(mktemp -d)
chmod 755 "$root" # it becomes "/", which programs that drop their rights must still read
cleanup() {
  for place in run/netns proc dev sys ""; do
    mountpoint -q "$root/$place" && umount -l "$root/$place"
  done
  rm -rf --one-file-system "$root"
}
trap cleanup EXIT

release=${HOOKPROBE_RELEASE:-$(. /etc/os-release && echo "$VERSION_CODENAME")}
mirror=$(cd "$here" && python3 -c "
import sys; sys.path.insert(0, 'tests')
import prerequisites
print(prerequisites.debian_mirror(prerequisites.codename()))")
echo "fresh: making a minimal $release root" >&2
debootstrap --variant=minbase --include=python3,ca-certificates "$release" "$root" "$mirror" >"$root.log" 2>&1 ||
  { tail -5 "$root.log" >&2; exit 1; }
rm -f "$root.log"

# "ip netns" remounts "/", so "/" must be a mount of its own.
mount --bind "$root" "$root"
mount --make-private "$root"
mount --bind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t sysfs sys "$root/sys"
cp /etc/resolv.conf /etc/hosts "$root/etc/" 2>/dev/null || true
# A site's own CA reaches the chroot as it reached this machine.
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"

git -C "$here" archive --prefix=hookprobe/ HEAD | tar -x -C "$root/opt"
for task in "${tasks[@]}"; do
  echo "fresh: python3 bootstrap.py $task" >&2
  chroot "$root" /usr/bin/env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
    CI="${CI:-}" PIP_CERT=/etc/ssl/certs/ca-certificates.crt HOOKPROBE_FRESH=1 \
    sh -c "cd /opt/hookprobe && python3 bootstrap.py $task"
done
echo "fresh: ok" >&2
