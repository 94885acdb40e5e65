"""systemd as the guest's PID 1: this machine's own systemd and dbus-daemon, with units of the lab's alone.

    SETUP → systemd → dbus.socket, rundlet-lab.service → RUN

Of this machine's units none is known there: a boot of all that it has installed would take minutes, and would say something about this
machine. systemd(1) on $SYSTEMD_UNIT_PATH; the units are what systemd's own of these names come to.
"""

from pathlib import Path

from rundlet.lab.guest import AREA

UNITS = f"{AREA}/share/units"

BUS = "/usr/bin/dbus-daemon --address=systemd: --nofork --nopidfile --systemd-activation --syslog-only"

# below UNITS; folder user/ is for the managers of users
FILES = {
    "rundlet-lab.service": f"""[Unit]
Description=the command of rundlet lab
DefaultDependencies=no
Requires=dbus.socket
After=dbus.socket
[Service]
ExecStart={AREA}/bin/sh {AREA}/share/run
Delegate=yes
TasksMax=infinity
OOMPolicy=continue
""",
    "dbus.socket": """[Unit]
DefaultDependencies=no
[Socket]
ListenStream=/run/dbus/system_bus_socket
""",
    "dbus.service": f"""[Unit]
DefaultDependencies=no
Requires=dbus.socket
[Service]
Type=notify
NotifyAccess=main
ExecStart={BUS} --system
""",
    "user@.service": f"""[Unit]
Description=the manager of user %i
DefaultDependencies=no
[Service]
Type=notify
User=%i
Environment=XDG_RUNTIME_DIR=/run/user/%i SYSTEMD_UNIT_PATH={UNITS}/user:/run/user/%i/systemd/transient
Environment=SYSTEMD_GENERATOR_PATH={AREA}/none SYSTEMD_ENVIRONMENT_GENERATOR_PATH={AREA}/none
ExecStartPre=+/bin/mkdir -p -m 755 /run/user
ExecStartPre=+/usr/bin/install -d -m 700 -o %i -g %i /run/user/%i
ExecStart=/lib/systemd/systemd --user
Slice=user-%i.slice
KillMode=mixed
Delegate=pids memory cpu
TasksMax=infinity
""",
    "user/default.target": """[Unit]
DefaultDependencies=no
Requires=dbus.socket
""",
    "user/exit.target": """[Unit]
DefaultDependencies=no
Requires=systemd-exit.service
After=systemd-exit.service
AllowIsolate=yes
""",
    "user/systemd-exit.service": """[Unit]
DefaultDependencies=no
SuccessAction=exit-force
[Service]
Slice=-.slice
""",
    "user/dbus.socket": """[Unit]
DefaultDependencies=no
[Socket]
ListenStream=%t/bus
""",
    "user/dbus.service": f"""[Unit]
DefaultDependencies=no
Requires=dbus.socket
[Service]
Type=notify
NotifyAccess=main
ExecStart={BUS} --session
""",
}

START = f"""# Read by SETUP, which then is systemd. What systemd mounts by units elsewhere is mounted here.
mkdir -p /dev/mqueue
mount -t mqueue -o nosuid,nodev,noexec mqueue /dev/mqueue
rm -f /.dockerenv  # by which systemd would take itself for a guest of docker
echo rundlet-lab >/etc/hostname
[ -s /etc/machine-id ] || tr -d - </proc/sys/kernel/random/uuid >/etc/machine-id
export SYSTEMD_UNIT_PATH={UNITS}:/run/systemd/system:/run/systemd/transient:/run/systemd/system.control SYSTEMD_GENERATOR_PATH={AREA}/none
exec "$systemd" --unit=rundlet-lab.service --log-target=kmsg --show-status=no \\
    --default-standard-output=null --default-standard-error=null
"""


def fill(share: Path) -> None:
    """Put the units, and the script that becomes systemd, into the folder `share`."""
    (share / "systemd").write_text(START)
    (share / "units/user").mkdir(parents=True)
    for name, text in FILES.items():
        (share / "units" / name).write_text(text)
