"""The integer network: arithmetic, operations, programs, and the engines that execute them. Never torch."""
