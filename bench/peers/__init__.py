# SPDX-License-Identifier: MIT
"""Other samplers, measured on the same target in the same run."""
