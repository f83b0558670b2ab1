"""Reading and steering a network: `attach` alone touches its modules, the others say what to read and what to replace."""
