"""Tests of what surrounds the code: import rule, scripts, distribution, command line."""
