"""Rehearsals: a pod's programs, compiled and judged without the pod."""
