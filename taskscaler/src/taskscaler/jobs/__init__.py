"""Jobs: tasks with a script, and everything that runs them on a scaler's slots.

Each module is one subject, in the order in which a job meets them:

- `job`: a job, its runs, and what can be wrong with it; `jobs_file` reads a file of them.
- `paths`: which files are uploaded, and where downloaded files may be written.
- `runner`: the queue, the workers, retries; starts an attempt for each slot.
- `executor`: one attempt on one connection; `script` is the text that it sends.
- `output`: where the output of a job goes.
- `result`: the state of a run; `journal` keeps it over a restart; `report` writes it to a file.
"""
