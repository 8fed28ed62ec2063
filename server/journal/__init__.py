"""The journal: streams of records, the sequencer of control, and the engines that keep them."""
