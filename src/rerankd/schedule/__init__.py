"""Many requests -> good batches.

In: prompts as ids with deadline, tenant and priority. Out: one outcome a pair. Knows token counts, not models.
"""
