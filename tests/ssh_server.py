"""An OpenSSH server of this test's own, with keys and configuration in a temporary folder: on 127.0.0.1, or in a
network namespace behind a line with delay and loss."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

SLOW_LINE = Path(__file__).with_name("slow_line.py")
SERVER = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def is_there() -> str:
    """Why there can be no server here; empty if there can."""
    if SERVER is None or shutil.which("ssh") is None:
        return "needs OpenSSH's server and client: apt install openssh-server openssh-client"
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "runs a server as root"
    return ""


class Server:
    """A server that runs; logins are of root, by the user's key, with an empty cache folder of their own.

    Args:
        folder: of its files.
        host: its address.
        prefix: of the command that starts it.
        is_slow: whether the line to it is `slow_line.py`.

    Attributes:
        address: for `Device`, with the Python of this test.
        cache: XDG_CACHE_HOME of logins.
        config: of the client.
    """

    def __init__(
        self, folder: Path, *, host: str = "127.0.0.1", prefix: Sequence[str] = (), is_slow: bool = False
    ) -> None:
        self.folder, self.cache, self.config = folder, folder / "cache", folder / "ssh_config"
        self.host, self.prefix, self.is_slow = host, prefix, is_slow
        self.process: subprocess.Popen[bytes] | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        for name in ("host", "user", "other"):
            make_key(folder / name)
        (folder / "authorized").write_text((folder / "user.pub").read_text())
        (folder / "known").write_text(f"[{host}]:{self.port} {(folder / 'host.pub').read_text()}")
        (folder / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress {host}\nHostKey {folder / 'host'}\nPidFile none\nUsePAM no\n"
            f"AuthorizedKeysFile {folder / 'authorized'}\nStrictModes no\nPermitRootLogin prohibit-password\n"
            f"PasswordAuthentication no\nKbdInteractiveAuthentication no\nSetEnv XDG_CACHE_HOME={self.cache}\n"
        )
        self.write_config()

    def write_config(self, *, key: str = "user", known: str = "known") -> None:
        """The client's configuration, which `LPSNET_SSH` gives to `Device`."""
        line = f"  ProxyCommand {sys.executable} {SLOW_LINE} %h %p\n" if self.is_slow else ""
        self.config.write_text(
            f"Host *\n  IdentityFile {self.folder / key}\n  IdentitiesOnly yes\n  IdentityAgent none\n"
            f"  UserKnownHostsFile {self.folder / known}\n  GlobalKnownHostsFile none\n  StrictHostKeyChecking yes\n"
            f"{line}"
        )

    @property
    def login(self) -> str:
        return f"ssh://root@{self.host}:{self.port}"

    @property
    def address(self) -> str:
        return self.with_python(Path(sys.executable))

    def with_python(self, path: Path) -> str:
        return f"{self.login}?python={path}"

    def start(self) -> None:
        assert SERVER is not None
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        command = [*self.prefix, SERVER, "-D", "-e", "-f", str(self.folder / "sshd_config")]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection((self.host, self.port), timeout=1):
                return
            time.sleep(0.05)
        raise AssertionError((self.folder / "log").read_text())

    def stop(self) -> None:
        """As if the machine were switched off."""
        if self.process is not None:
            self.cut()
            self.process.terminate()
            self.process.wait()
            self.process = None

    def cut(self) -> None:
        """Kill the server's processes of all connections, and what they run."""
        assert self.process is not None
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.send_signal(signal.SIGKILL)

    def agents(self) -> list[int]:
        """Processes that the server's connections run, by id."""
        if self.process is None:
            return []
        found = psutil.Process(self.process.pid).children(recursive=True)
        names = []
        for child in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                if "python" in child.name():
                    names.append(child.pid)
        return names


def make_key(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)


@contextlib.contextmanager
def namespace(name: str, *, core: int) -> Iterator[tuple[str, list[str]]]:
    """A network namespace during the block: its address, and what starts a program in it on one core."""

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    inside = ["ip", "netns", "exec", name]
    ip("netns", "add", name)
    try:
        ip("link", "add", f"{name}0", "type", "veth", "peer", "name", f"{name}1", "netns", name)
        for prefix, side in ([], 0), (inside, 1):
            for words in (
                ["ip", "address", "add", f"10.211.57.{side + 1}/24", "dev", f"{name}{side}"],
                ["ip", "link", "set", f"{name}{side}", "up"],
            ):
                subprocess.run([*prefix, *words], check=True, capture_output=True)
        subprocess.run([*inside, "ip", "link", "set", "lo", "up"], check=True, capture_output=True)
        yield "10.211.57.2", [*inside, "taskset", "-c", str(core)]
    finally:
        ip("netns", "delete", name)


def has_namespaces() -> bool:
    """Whether this machine lets the tests make one."""
    try:
        with namespace("lpsprobe", core=0):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


@contextlib.contextmanager
def server(folder: Path, monkeypatch: pytest.MonkeyPatch, **place: Any) -> Iterator[Server]:
    """A server during the block, which `ssh` reaches with the configuration of `LPSNET_SSH`."""
    found = Server(folder, **place)
    monkeypatch.setenv("LPSNET_SSH", f"ssh -F {found.config}")
    found.start()
    try:
        yield found
    finally:
        found.stop()
