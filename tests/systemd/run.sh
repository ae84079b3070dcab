#!/usr/bin/env bash
# Runs the units of deploy/systemd under a real systemd: a minimal Debian root made with debootstrap,
# booted as a machine of its own (systemd is PID 1, own cgroups, no network but its loopback), with
# the project installed from its wheel. Root, debootstrap and systemd-nspawn are needed.
#
#   tests/systemd/run.sh
#   HOOKPROBE_ROOT=DIR ...             keep the root in DIR and use it again
#   HOOKPROBE_RELEASE=trixie ...       another Debian release, and so another systemd
set -euo pipefail
here=$(cd "$(dirname "$0")/../.." && pwd)
python=$here/${HOOKPROBE_VENV:-.venv}/bin/python

if [ "$(id -u)" != 0 ]; then
  echo "systemd: root is needed for a machine of its own" >&2
  exit 1
fi
needed=()
command -v debootstrap >/dev/null || needed+=(debootstrap)
command -v systemd-nspawn >/dev/null || needed+=(systemd-container)
if [ ${#needed[@]} -gt 0 ]; then
  apt-get -q update >/dev/null
  DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends "${needed[@]}" >/dev/null
fi

work=$(mktemp -d)
root=${HOOKPROBE_ROOT:-$work/root}
machine=
power_off() {
  [ -n "$machine" ] || return 0
  kill -RTMIN+4 "$(cat "$work/init")" 2>/dev/null || true # systemd: power off
  for _ in $(seq 300); do
    kill -0 "$machine" 2>/dev/null || { machine=; return 0; }
    sleep 0.1
  done
  kill -9 "$(cat "$work/init")" "$machine" 2>/dev/null || true
  machine=
}
cleanup() {
  power_off
  rm -rf --one-file-system "$work"
}
trap cleanup EXIT

release=${HOOKPROBE_RELEASE:-$(. /etc/os-release && echo "$VERSION_CODENAME")}
if [ ! -e "$root/etc/debian_version" ]; then
  mirror=$(cd "$here" && python3 -c "
import sys; sys.path.insert(0, 'tests')
import prerequisites
print(prerequisites.debian_mirror(prerequisites.codename()))")
  echo "systemd: making a minimal $release root" >&2
  debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,python3,ca-certificates \
    "$release" "$root" "$mirror" >"$work/log" 2>&1 || { tail -5 "$work/log" >&2; exit 1; }
fi
rm -rf "$root"/{etc,var/lib}/hookprobe "$root"/etc/systemd/system/{dsm,neuro}-* \
  "$root"/etc/systemd/system/multi-user.target.wants/{dsm,neuro}-* "$root"/opt/{hookprobe,source}

echo "systemd: installing the wheel and the units" >&2
mkdir -p "$root/opt/source" "$root/etc/sysusers.d" "$root/var/log/suricata"
(cd "$here" && "$python" -m flit_core.wheel --outdir "$root/opt/source" >/dev/null)
cp "$here"/tools/pip-*.whl "$here/requirements/run.txt" "$root/opt/source"
# The extra "api" is locked among the packages of development.
"$python" - "$here/requirements/dev.txt" >"$root/opt/source/api.txt" <<'END'
import re, sys
text = open(sys.argv[1]).read()
for name in ("click", "h11", "prometheus-client", "uvicorn"):
    print(re.search(rf"^{name}==(?:.*\\\n)*.*\n", text, re.MULTILINE)[0], end="")
END
cp -r "$here"/deploy/systemd/*.service "$root/etc/systemd/system/"
cp "$here/deploy/sysusers.d/hookprobe.conf" "$root/etc/sysusers.d/"
cp "$here/tests/systemd/check.py" "$here/tests/data/sensors/eve/brute-ssh.eve.json" "$root/opt/source"
mkdir "$root/opt/source/drop-ins"
cp "$here"/deploy/systemd/dsm-node.service.d/*.conf "$root/opt/source/drop-ins"
cp /etc/resolv.conf "$root/etc/resolv.conf" 2>/dev/null || true
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
  PIP_CERT=/etc/ssl/certs/ca-certificates.crt sh -ec '
  cd /opt/source
  python3 -m venv --without-pip /opt/hookprobe
  pip="/opt/hookprobe/bin/python $(echo pip-*.whl)/pip --disable-pip-version-check -q install"
  $pip --require-hashes -r run.txt
  $pip --require-hashes -r api.txt
  $pip --no-deps hookprobe-*.whl
  ln -sf /opt/hookprobe/bin/hookprobe /usr/local/bin/hookprobe
  systemd-sysusers'

boot() {
  # Any device stands for a TPM: none may be opened unless a unit names it.
  local device=/dev/net/tun
  [ -e $device ] || device=/dev/fuse
  rm -f "$work/init"
  SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 unshare --mount --propagation private systemd-nspawn \
    -q -D "$root" --register=no --keep-unit --private-network --console=pipe \
    --bind=$device:/dev/tpmrm0 -b </dev/null >"$work/console" 2>&1 &
  machine=$!
  # Not any child: one that is gone a moment later makes the one that becomes init.
  for _ in $(seq 300); do
    pgrep -P "$machine" -x systemd >"$work/init" && break
    sleep 0.1
  done
  inside sh -c 'until systemctl is-system-running 2>/dev/null | grep -Eq "running|degraded"; do sleep 0.2; done'
}
inside() {
  timeout 240 nsenter -t "$(cat "$work/init")" -m -p -u -i -n -C -- /usr/bin/env -i LANG=C.UTF-8 \
    PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
}

for step in first again; do
  echo "systemd: booting" >&2
  boot
  inside python3 /opt/source/check.py "$step"
  power_off
done
echo "systemd: ok" >&2
