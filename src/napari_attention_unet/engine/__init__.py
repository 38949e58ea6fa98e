"""Running a lowered network: devices, memory, plans, executors."""
