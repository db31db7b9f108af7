"""``rerankd rank --input``: files of any size, record by record.

source.py    records of a JSONL, CSV, TSV or Parquet file, each with the place behind it
fields.py    a record's query and documents, and the record that is written for it
scorers.py   scores from the model in this process, or from a running server
output.py    what was written and what failed, up to a checkpoint that survives a kill
progress.py  how far it is, how fast, how long it takes
run.py       all of it together
"""
