"""The shell scripts that run inside the guest, and the files that tell them what to do.

    kernel → INIT (initramfs)   modules, the host's root read-only under a tmpfs, the share; switch_root
           → SETUP (PID 1)      kernel file systems, cgroup v2; or systemd, which then is PID 1 (systemd.py)
           → RUN                the command; its status into the share; reset

All run on the initramfs' own busybox, so nothing of the host's root is needed before the command itself.
"""

import os
from shlex import quote

AREA = "/run/rundlet-lab"  # in the guest: bin/ (busybox), share/ (the folder shared with the host)

# Programs the scripts use; each becomes a link to busybox.
APPLETS = (
    *("cat", "chmod", "cp", "echo", "hostname", "insmod", "ip", "ln", "mkdir", "modprobe", "mount", "mv", "rm"),
    *("setsid", "sh", "sleep", "switch_root", "sync", "tr", "uname"),
)

BASE_ENV = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "USER": "root",
    "LOGNAME": "root",
    "SHELL": "/bin/sh",
    "LANG": "C.UTF-8",
    "TERM": "dumb",
}

_9P = "trans=virtio,version=9p2000.L,msize=512000"

INIT = f"""#!/bin/sh
# The first process: find the host's root and the share, then hand over.
export PATH=/bin
mkdir -p /proc /dev /run /lower /upper /root
mount -t proc -o nosuid,nodev,noexec proc /proc
mount -t devtmpfs dev /dev 2>/dev/null
fail() {{ echo "rundlet-lab: $*" >/dev/console; echo b >/proc/sysrq-trigger; while :; do sleep 1; done; }}
while read -r module; do
    insmod "/modules/$module" || fail "cannot load the module $module"
done </modules/order
mount -t tmpfs -o nosuid,nodev,mode=755 run /run || fail "cannot mount a tmpfs"
mkdir -p {AREA}/share
cp -a /bin {AREA}/bin
mount -t 9p -o {_9P},cache=none share {AREA}/share || fail "cannot mount the share (9p over virtio)"
mount -t 9p -o {_9P},cache=loose,ro host /lower || fail "cannot mount the host's root (9p over virtio)"
mount -t tmpfs -o mode=755,size=80% upper /upper
mkdir /upper/files /upper/work
mount -t overlay -o lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work,redirect_dir=on rundlet-lab /root ||
    fail "cannot mount the overlay over the host's root"
mkdir -p /root/proc /root/dev /root/run /root/sys /root/tmp
mount -o move /run /root/run
mount -o move /dev /root/dev
# This too must cover the host's before anything runs there: busybox starts its applets as /proc/self/exe, which over 9p is qemu.
mount -o move /proc /root/proc
exec switch_root /root {AREA}/bin/sh {AREA}/share/setup
"""

SETUP = f"""#!/bin/sh
# PID 1 from here on: the guest as a machine of its own, then the command.
export PATH={AREA}/bin
umask 022
cd /
echo 3 4 1 3 >/proc/sys/kernel/printk
echo 0 >/proc/sys/kernel/printk_ratelimit # all that is denied is to be in its log
. {AREA}/share/settings
[ -z "$systemd" ] || . {AREA}/share/systemd
mount -t sysfs -o nosuid,nodev,noexec sysfs /sys
mkdir -p /dev/pts /dev/shm /dev/mqueue /run/lock
chmod 1777 /run/lock
mount -t devpts -o nosuid,noexec,gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o nosuid,nodev,mode=1777 tmpfs /dev/shm
mount -t mqueue -o nosuid,nodev,noexec mqueue /dev/mqueue
ln -sf /proc/self/fd /dev/fd
ln -sf /proc/self/fd/0 /dev/stdin
ln -sf /proc/self/fd/1 /dev/stdout
ln -sf /proc/self/fd/2 /dev/stderr
mount -t securityfs -o nosuid,nodev,noexec securityfs /sys/kernel/security
mount -t bpf -o nosuid,nodev,noexec,mode=700 bpf /sys/fs/bpf
mount -t cgroup2 -o nosuid,nodev,noexec,nsdelegate,memory_recursiveprot cgroup2 /sys/fs/cgroup
# Processes live in a child, so that the root's controllers can be handed on to whatever a runtime creates beside it.
mkdir /sys/fs/cgroup/lab
echo 1 >/sys/fs/cgroup/lab/cgroup.procs
for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
    echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control
done
hostname rundlet-lab
ip link set lo up
ulimit -Hn 524288
exec sh {AREA}/share/run
"""

RUN = f"""#!/bin/sh
# In a machine that is up: the command.
export PATH={AREA}/bin
umask 022
. {AREA}/share/settings
if [ -d "$modules" ]; then
    mkdir -p "/lib/modules/$(uname -r)"
    mount -o bind "$modules" "/lib/modules/$(uname -r)"
fi
# kmod's modprobe reads indexes that no other depmod writes, and the machine may have had another when the kernel was unpacked
[ -e /sbin/modprobe ] && [ -e "/lib/modules/$(uname -r)/modules.dep.bin" ] || ln -sf {AREA}/bin/modprobe /sbin/modprobe
# Like a machine under systemd: a runtime has to make its mounts private by itself.
mount --make-rshared /

# Hand over the status (by rename: never half a file) and reset the machine. Without a status the host reports a death.
finish() {{
    [ ! -e {AREA}/status ] || {{ cp {AREA}/status {AREA}/share/status.new; mv {AREA}/share/status.new {AREA}/share/status; }}
    sync
    echo b >/proc/sysrq-trigger
    while :; do sleep 1; done
}}

# Pipes without a name: AppArmor would mediate a fifo by its path and cut a confined command off its own output.
# A process left behind may hold the pipes open for ever, so once the status is there they get two seconds.
echo >{AREA}/share/started
{{
    {{
        # exec in a subshell: else this shell would say "Killed" where the command's stderr goes.
        (exec setsid sh {AREA}/share/command </dev/null 2>&3 3>&-)
        echo $? >{AREA}/status
        (sleep 2; finish) >/dev/null 2>&1 3>&- &
    }} | cat >>{AREA}/share/stdout 3>&-
}} 3>&1 | cat >>{AREA}/share/stderr
finish
"""


def settings(modules: str | None, systemd: str | None) -> str:
    """The variables the scripts read: the host's folder of the kernel's modules, and the systemd that is to be PID 1; None for none."""
    return f"modules={quote(modules or '')}\nsystemd={quote(systemd or '')}\n"


def command_script(command: list[str], cwd: str, env: dict[str, str]) -> bytes:
    """The script that becomes the command, in bytes as arguments need not be UTF-8.

    It runs in `cwd`, with BASE_ENV overridden by `env` and nothing else in its environment.
    """
    variables = {**BASE_ENV, "PWD": cwd, **env}
    words = ["/usr/bin/env", "-i", *(f"{name}={value}" for name, value in variables.items()), *command]
    return os.fsencode(f"cd {quote(cwd)} || exit 125\nexec {' '.join(map(quote, words))}\n")
