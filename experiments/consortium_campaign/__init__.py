"""Parts of the campaign of faults against a consortium; `experiments/consortium_faults.py` is the command."""
