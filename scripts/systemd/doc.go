// Package systemd tests the product under a real systemd: the units in deploy/,
// what docs/ tells administrators to do with them, and the recipes that need
// one. Its tests run in a container that run.sh starts, with the tag systemd,
// and nowhere else: they install programs and stop services.
package systemd
