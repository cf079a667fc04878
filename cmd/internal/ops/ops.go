// Package ops is what a daemon tells those who look after it. The service
// manager hears ready, status, stopping, and that it is alive (sd_notify(3));
// where there is none these calls do nothing. Who is on the same machine may
// ask over HTTP (Pages).
package ops

import (
	"context"
	"fmt"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Ready says that the daemon does its work now.
func Ready() { daemon.SdNotify(false, daemon.SdNotifyReady) }

// Stopping says that the daemon is on its way out.
func Stopping() { daemon.SdNotify(false, daemon.SdNotifyStopping) }

// Status shows one line in `systemctl status`.
func Status(line string) { daemon.SdNotify(false, "STATUS="+line) }

// Extend asks for d more to start in: the service manager gives up otherwise.
func Extend(d time.Duration) {
	daemon.SdNotify(false, fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", d.Microseconds()))
}

// Watchdog tells the service manager that the daemon is alive, as often as it
// wants to hear it, for as long as alive returns true. It returns when ctx
// ends, or at once when nobody wants to hear it.
func Watchdog(ctx context.Context, alive func() bool) {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil || interval <= 0 {
		return
	}
	tick := time.NewTicker(interval / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if alive() {
				daemon.SdNotify(false, daemon.SdNotifyWatchdog)
			}
		}
	}
}
