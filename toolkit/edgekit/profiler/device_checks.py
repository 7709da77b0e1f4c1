"""What `edgekit doctor` checks: which engines can run here, and what TensorRT builds here.

Rules this file keeps:

1. An engine of TensorRT can run only where one convolution of its precision was built: that it can be imported is not enough.
2. The builds happen in a process of their own: one that ends its process does not end the examination.
3. Every check says PASS, FAIL or NOT RUN, with the reason and the remedy.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.profiler import probe_process
from edgekit.profiler.check import FAIL, NOT_RUN, PASS, Check
from edgekit.runtime.engines import ENGINES, engine_class
from edgekit.runtime.engines.base import Availability
from edgekit.runtime.engines.tensorrt_probe import NEEDS, Probed


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What was found.

    Attributes:
        engines: Engine to its version, or the reason and the remedy.
        probed: What TensorRT builds here.
        checks: All of it as checks: first the builds, then the engines.
    """

    engines: dict[str, Availability]
    probed: Probed
    checks: tuple[Check, ...]

    @property
    def can_run(self) -> bool:
        """Whether any engine can run here."""
        return any(check.name.startswith("engine ") and check.status == PASS for check in self.checks)


def examine() -> Examination:
    """Looks at every engine that edgekit knows, and builds."""
    engines = {name: engine_class(name).available() for name in ENGINES}
    probed = probe_process.probe_apart()
    checks = (*build_checks(probed), *(_engine_check(name, found, probed) for name, found in engines.items()))
    return Examination(engines=engines, probed=probed, checks=checks)


def build_checks(probed: Probed) -> tuple[Check, ...]:
    """One check a precision; the value is the seconds that its build took."""
    return tuple(
        Check(name=f"build-one-convolution {one.precision}", status=one.status, value=one.seconds, reason=one.reason)
        for one in probed.probes
    )


def _engine_check(name: str, found: Availability, probed: Probed) -> Check:
    check = f"engine {name}"
    if found.version is None:
        return Check(name=check, status=NOT_RUN, reason="; ".join(filter(None, (found.reason, found.hint))))
    if name not in NEEDS:
        return Check(name=check, status=PASS, value=found.version)
    built = next(one for one in probed.probes if one.precision == NEEDS[name])
    if built.status == PASS:
        return Check(name=check, status=PASS, value=found.version)
    if built.status == FAIL:
        reason = f"it builds nothing in {built.precision} for this GPU: {built.reason}"
        return Check(name=check, status=FAIL, value=found.version, reason=reason)
    return Check(name=check, status=NOT_RUN, value=found.version, reason=built.reason)
