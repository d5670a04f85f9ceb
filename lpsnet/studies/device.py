"""What a study says of the device it ran on: what it is called, and its power mode where it can be read."""

from lpsnet.benchmark.machine import Machine


def device_name(machine: Machine) -> str:
    """The GPU's, the board's or the processor's name, whichever says most."""
    return machine.gpus[0] if machine.gpus else machine.board or machine.cpu


def power_mode(machine: Machine) -> str:
    """Jetson's mode or the processor's frequency governor; `unknown` where neither can be read."""
    return machine.power_mode or "unknown"
