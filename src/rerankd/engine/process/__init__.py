"""An engine in a process of its own, for several engines behind one listener (the setting ``replicas``).

=============  ==========================================================================================
``frames``     what parent and child say to each other: JSON heads and bare arrays, never pickle
``worker``     the child: loads the real engine, scores what it is sent, ends with its parent
``engine``     the parent's side, an engine like any other: its core, queue and watchdog stay in the server
``placement``  which CPUs, or which GPU, each child has
=============  ==========================================================================================
"""
