"""The work of a command on many machines, by Ray (``pip install 'licquant[cluster]'``): read in this order.

    items ──cut──> shards                      ``shards``   what is to be done, some hundred files at a time
    shard ──do_shard──> files, rows            ``worker``   what runs on the other machines
    rows ──> part-000003072-….parquet            ``rows``     one a shard: what became of every file, and from what
    every shard a Ray task, counted            ``run``      the driver, which sees no picture and no result
    a cluster that is there, or one for a run  ``session``

Ray schedules, starts again what died, and brings in machines that join; nothing of that is done here. What a work
does to a file is the command's own function, the same that runs without a cluster: the bytes are the same.

A run can always be continued with the same command. What an earlier one has done is passed over by its content: the
row says from which bytes, by which model, settings and code, which bytes were made, and is compared with what is there.
"""
