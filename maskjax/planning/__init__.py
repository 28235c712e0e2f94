"""What a run will need on a TPU slice, from compiling its step on a CPU.

`topology` names slices, `program` lowers the step, `compiling` compiles it, `hlo` reads the result;
`memory`, `collectives` and `costs` measure it, `roofline` turns counts into times, `planner` puts
them together and `report` shows them.
"""
