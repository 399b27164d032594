#!/bin/bash
# run.sh TOP OUT - installs gantry into an overlay of this machine's root and boots a real systemd there; inside.sh tests the units.
#
# Root only. A systemd empties the temporary folder of its root at boot, so it never gets the real one: lower is / (read only), upper
# and /tmp are a tmpfs of our own mount namespace, processes and network are the container's. OUT gets result.log, console.log and rc.
set -eu
if [ -z "${INNER:-}" ]; then
    INNER=1 exec unshare --mount bash "$0" "$@"
fi
top=$1 out=$2 here=$(dirname "$(readlink -f "$0")")
base=$(mktemp -d /mnt/gantry-systemd.XXXXXX)
mount -t tmpfs -o size=2g tmpfs "$base"
mkdir "$base"/{upper,work,root}
mount -t overlay overlay -o lowerdir=/,upperdir="$base/upper",workdir="$base/work" "$base/root"
root=$base/root
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
[ "$(findmnt -n -o FSTYPE -T "$root")" = overlay ] && [ "$(findmnt -n -o FSTYPE -T "$root/tmp")" = tmpfs ] || { echo "the root is not isolated" >&2; exit 1; }

rm -f "$root/etc/machine-id"
head -c16 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$root/etc/machine-id"
make -s -C "$top" install DESTDIR="$root" PREFIX=/usr >/dev/null
install -m 755 "$here/inside.sh" "$root/usr/local/bin/gantry-inside"
cp "$out/run.yaml" "$root/etc/run.yaml"
(umask 077; echo what-the-page-asks-for >"$root/etc/page.token")        # root's alone, while the units have a user of their own
mount --bind /proc "$root/proc"         # without it the loader does not know where a program lies, nor the library beside it
chroot "$root" /usr/bin/gantry deploy systemd --config /etc/run.yaml --install >/dev/null
umount "$root/proc"
units=$root/etc/systemd/system
cat >"$units/ci.target" <<C
[Unit]
Requires=basic.target
Wants=dbus.service dbus.socket ci-run.service
After=basic.target
AllowIsolate=yes
C
cat >"$units/ci-run.service" <<C
[Unit]
After=basic.target dbus.service
[Service]
Type=oneshot
ExecStart=/usr/local/bin/gantry-inside
C
for u in systemd-tmpfiles-clean.timer systemd-udevd.service systemd-udev-trigger.service systemd-networkd.service systemd-resolved.service \
         systemd-timesyncd.service slurmctld.service slurmd.service munge.service; do
    ln -sfn /dev/null "$units/$u"
done
timeout -k 5 400 systemd-nspawn -q -D "$root" --register=no --keep-unit --private-network --link-journal=no --bind="$out:/out" \
    --console=pipe --boot systemd.unit=ci.target </dev/null >"$out/console.log" 2>&1 || true
umount -l "$root/tmp" "$root" "$base"
rmdir "$base"
