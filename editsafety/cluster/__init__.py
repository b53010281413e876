"""One run on a cluster: cases are dealt to workers, each with a model of its own; the driver alone writes the store.

`work` is what a worker can be given and gives back, `worker` does it, `dealing` says who gets what and what a death
means, `sweep` is the driver, `ray_crew` the only file that knows Ray. No torch: editors run in processes of their own.
"""
