"""Text -> token ids.

In: query, documents, instruction. Out: a :class:`~rerankd.prompt.build.Prompt`. May import tokenizers, never torch.
"""
