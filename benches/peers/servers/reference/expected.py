"""What every server must answer: `expected.py OUT PHOTO...` writes the probabilities of all classes, a row a photo.

ONNX Runtime is called directly, a photo at a time, on Pillow's preprocessing.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from imagenet import Classifier, best, prepare


def main() -> None:
    classifier = Classifier()
    rows = {}
    for photo in sys.argv[2:]:
        logits = classifier.logits(prepare(Path(photo).read_bytes())[None])[0]
        scores = dict(best(logits, count=len(logits)))
        rows[photo] = [scores[index] for index in range(len(logits))]
    Path(sys.argv[1]).write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
