"""What a run will need on TPUs or GPUs, from compiling its step on a CPU.

`topology` names devices, `gpus` describes those that need it, `program` lowers the step,
`compiling` compiles it, `hlo` reads the result; `memory`, `collectives`, `costs` and `kernels`
measure it, `roofline` turns counts into times, `cautions` names what surprises, `planner` puts them
together and `report` shows them.
"""
