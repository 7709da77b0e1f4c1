"""A clip in progress: the frames of one source, in their order.

```python
clip = classifier.clip()
for frame in cine:
    prediction = clip.predict(frame)
```

Rules this file keeps:

1. A clip owns what belongs to a sequence of frames and nothing else does, so that two sources on one classifier cannot disturb each other.
2. After `reset`, and after a frame that failed or is not assessable, it is as new: nothing of what was before a gap is carried over it. Only `reset` forgets how long
   a source has been frozen.
3. A clip is one source's; unlike a classifier it must not be used from several threads at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgekit.runtime.input_gate import FrozenWatch

if TYPE_CHECKING:
    from edgekit.runtime.classifier import Classifier
    from edgekit.runtime.prediction import Prediction


class Clip:
    """The frames of one source on a classifier; made by `Classifier.clip`."""

    def __init__(self, classifier: Classifier, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Takes the classifier, and a clock of seconds that only goes forward: a source is frozen by its frames or by their time."""
        self._classifier = classifier
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        """Begins anew, as after a change of patient, of view, or after a gap."""
        gate = self._classifier.manifest.gate
        self._state: NDArray[np.float32] | None = self._classifier.initial_state()
        self._watch = None if gate is None else FrozenWatch(gate.frozen_frames, gate.frozen_s)

    def predict(self, frame: NDArray[np.uint8], *, explain: bool = True, gate: bool = True) -> Prediction:
        """Answers the next frame of the clip; a frozen one goes unanswered. Arguments and errors as in `Classifier.predict`."""
        state, self._state = self._state, self._classifier.initial_state()  # stays so where the frame fails (rule 2)
        watch = None if self._watch is None else self._frozen
        prediction, self._state = self._classifier.step(frame, state, explain=explain, gate=gate, watch=watch)
        return prediction

    def _frozen(self, tensor: NDArray[np.uint8]) -> str:
        return "" if self._watch is None else self._watch.see(tensor, self._clock())


class FirstFrames:
    """Answers each frame as the first of a clip of its own. For timings, to which the frames before mean nothing; not for a source's frames.

    Frames go through the input gate and are answered whatever it says: what is timed is everything that a frame costs, also on one that is synthetic.
    """

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier

    def predict(self, frame: NDArray[np.uint8], *, explain: bool = True, gate: bool = False) -> Prediction:
        """As `Classifier.predict`, also where the classifier is recurrent."""
        return self._classifier.step(frame, self._classifier.initial_state(), explain=explain, gate=gate)[0]
