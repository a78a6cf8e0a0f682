//! Each assertion fails on a trace that violates it.
