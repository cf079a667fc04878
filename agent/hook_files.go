package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"deploytools/atomic"
)

// hookFormat is the format of the two documents. A newer one is refused, never
// rewritten.
const hookFormat = 1

// hookAttempt is LABEL.attempt.json: an attempt was about to begin.
type hookAttempt struct {
	Format     int
	Boot       string
	Attempt    int
	Supervisor int // process id, and id of the session in which the program runs
	Started    time.Time
}

// hookStatus is LABEL.status.json: an attempt has ended.
type hookStatus struct {
	Format int
	Boot   string
	hookResult
}

// result returns the result that stands: there is one, and it is of this boot.
func (c *hookCall) result() (hookResult, bool, error) {
	var s hookStatus
	if err := readDocument(c.file("status.json"), &s, &s.Format); err != nil {
		return hookResult{}, false, err
	}
	boot, err := bootID()
	if err != nil {
		return hookResult{}, false, err
	}
	return s.hookResult, s.Format != 0 && s.Boot == boot, nil
}

// lastAttempt returns the attempt begun last, or the zero value.
func (c *hookCall) lastAttempt() (hookAttempt, error) {
	var a hookAttempt
	err := readDocument(c.file("attempt.json"), &a, &a.Format)
	return a, err
}

func readDocument(path string, doc any, format *int) error {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	// What another format holds under the same names may not fit doc.
	err = json.Unmarshal(b, &struct{ Format *int }{format})
	if err == nil && *format == hookFormat {
		err = json.Unmarshal(b, doc)
	}
	if err != nil {
		return fmt.Errorf("cannot read %s: %w", path, err)
	}
	if *format != hookFormat {
		return fmt.Errorf("cannot read %s: format %d, want %d", path, *format, hookFormat)
	}
	return nil
}

func writeDocument(path string, doc any) error {
	b, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	return atomic.WriteFile(path, append(b, '\n'), 0o600)
}

// bootID names the time between two starts of the kernel.
func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b)), err
}
