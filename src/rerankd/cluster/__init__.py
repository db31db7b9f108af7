"""The server on a Ray cluster: ingresses that speak HTTP, and engine replicas that score (extra ``ray``).

===============  ======================================================================================
``messages``     what an ingress sends to a replica, and what comes back
``replica``      one engine core: the service for the models that it was asked for
``ingress``      the service of an ingress: rates, deadlines, and the way to a replica
``routing``      which replica a call is for: its prefix, its model, and how busy each is
``router``       the same for Ray Serve's request router
``metrics``      those of all replicas at one address
``autoscaling``  how many replicas there should be, from the tokens that wait
``application``  the two deployments from one settings file; ``serve run rerankd.cluster.application:build``
``command``      ``rerankd serve --ray``: a cluster of this machine for the life of one process
===============  ======================================================================================

Batching is the core's. Ray's own (``@serve.batch``) fails a whole batch with its worst pair, and knows no tokens.
"""
