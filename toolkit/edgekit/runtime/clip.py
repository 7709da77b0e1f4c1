"""A clip in progress: the frames of one source, in their order.

```python
clip = classifier.clip()
for frame in cine:
    prediction = clip.predict(frame)
```

Rules this file keeps:

1. A clip owns what belongs to a sequence of frames and nothing else does, so that two sources on one classifier cannot disturb each other.
2. After `reset`, and after a frame that failed, it is as new: nothing of what was before a gap is carried over it.
3. A clip is one source's; unlike a classifier it must not be used from several threads at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from edgekit.runtime.classifier import Classifier
    from edgekit.runtime.prediction import Prediction


class Clip:
    """The frames of one source on a classifier; made by `Classifier.clip`."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier
        self.reset()

    def reset(self) -> None:
        """Begins anew, as after a change of patient, of view, or after a gap."""
        self._state: NDArray[np.float32] | None = None

    def predict(self, frame: NDArray[np.uint8], *, explain: bool = True) -> Prediction:
        """Answers the next frame of the clip. Arguments and errors as in `Classifier.predict`."""
        state = self._state
        self.reset()  # stays so where the frame fails (rule 2)
        prediction, self._state = self._classifier.step(frame, state, explain=explain)
        return prediction
