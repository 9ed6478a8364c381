"""Makes the embedded model of refusal-guard from labelled rows; see README.md in this folder."""
