//go:build systemd

package systemd

func greeter() {}
