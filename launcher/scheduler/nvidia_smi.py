"""What nvidia-smi tells of a machine's GPUs: the command, and how its text is read. Pure."""

from __future__ import annotations

from dataclasses import dataclass

# Used and free rather than total: the total counts what the driver keeps for itself, which no
# program gets, in drivers from 510 on.
_FIELDS = "index,uuid,name,memory.used,memory.free"


@dataclass(frozen=True)
class Device:
    index: int
    uuid: str
    name: str
    memory_gib: float
    """Usable by programs (GiB)."""


def command() -> list[str]:
    return ["nvidia-smi", f"--query-gpu={_FIELDS}", "--format=csv,noheader,nounits"]


def parse(text: str) -> tuple[Device, ...]:
    """The devices; one whose memory is not shown (`[N/A]`, a GPU cut into MIG slices) is left out.

    Lines that are not of the form asked for (warnings of the driver or of srun) are skipped.
    """
    found = []
    for line in text.splitlines():
        words = [word.strip() for word in line.split(",")]
        if len(words) == 5 and all(words[i].isdecimal() for i in (0, 3, 4)):
            mib = int(words[3]) + int(words[4])
            found.append(Device(int(words[0]), words[1], words[2], round(mib / 1024, 2)))
    return tuple(found)


def visible(devices: tuple[Device, ...], selection: str | None) -> tuple[Device, ...]:
    """Those that CUDA_VISIBLE_DEVICES=`selection` leaves; None: the variable is not set.

    As CUDA does, reading stops at the first entry that names no device.
    """
    if selection is None:
        return devices
    kept: list[Device] = []
    for word in selection.split(","):
        entry = word.strip()
        match = [
            device
            for device in devices
            if entry == str(device.index) or (entry[:4] == "GPU-" and device.uuid.startswith(entry))
        ]
        if len(match) != 1:
            break
        kept += match
    return tuple(kept)
