//go:build power

package agent

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Run with: go test -tags power -run PowerLoss ./agent
// It needs root, loop devices and mkfs.ext4.

// fsShutdown is FS_IOC_SHUTDOWN of linux/fs.h: the file system loses what it
// has not written (2), or writes its journal first, but no data (1).
const fsShutdown = 0x8004587d

// volume is a file system that can lose its power.
type volume struct {
	*testing.T
	image, dir string
}

func newVolume(t *testing.T) *volume {
	v := &volume{t, memoryDir(t) + "/image", t.TempDir()}
	v.do("truncate", "-s", "32M", v.image)
	v.do("mkfs.ext4", "-q", v.image)
	v.do("mount", "-o", "loop", v.image, v.dir)
	t.Cleanup(func() { exec.Command("umount", "--lazy", v.dir).Run() })
	return v
}

func (v *volume) do(command ...string) {
	v.Helper()
	if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
		v.Fatalf("%v: %v: %s", command, err, out)
	}
}

func (v *volume) cut(flag int) {
	f, err := os.Open(v.dir)
	must(err)
	defer f.Close()
	must(unix.IoctlSetPointerInt(int(f.Fd()), fsShutdown, flag))
}

func (v *volume) restore() {
	runtime.GC() // closes the files that the panic has left open
	runtime.GC()
	v.do("umount", v.dir)
	v.do("mount", "-o", "loop", v.image, v.dir)
}

// errPower ends the process at a point, as the cut does.
var errPower = errors.New("power is lost")

// cutAt runs the agent and cuts the power at the point'th point that it
// passes. It returns the point's name; empty: the Run ended before.
func (h *host) cutAt(v *volume, point, flag int) (name string) {
	n := 0
	h.seam = func(p string) {
		if n == point {
			name = p
			v.cut(flag)
			panic(errPower)
		}
		n++
	}
	defer func() {
		h.seam = func(string) {}
		if p := recover(); p != nil && p != any(errPower) {
			panic(p)
		}
	}()
	h.run()
	return name
}

func TestPowerLossAtEveryPoint(t *testing.T) {
	for _, s := range scenarios() {
		if !s.later || s.name != "good" && s.name != "verification fails" {
			continue
		}
		for _, flag := range []int{1, 2} {
			t.Run(fmt.Sprintf("%s, flag %d", s.name, flag), func(t *testing.T) { s.everyCut(t, flag) })
		}
	}
}

// everyCut runs the scenario once for each point, with the cut at that point.
func (s scenario) everyCut(t *testing.T, flag int) {
	for point := 0; ; point++ {
		v := newVolume(t)
		h := s.prepareOn(t, v.dir)
		name := h.cutAt(v, point, flag)
		if name == "" {
			if point < 15 {
				t.Errorf("only %d points", point)
			}
			return
		}
		v.restore()
		h.afterKill(s, name)
		runtime.GC()
		v.do("umount", v.dir)
	}
}

// prepareOn is prepare on the directory of a volume.
func (s scenario) prepareOn(t *testing.T, dir string) *host {
	h := newHost(t, newFakeRegistry())
	h.dir, h.o.Dir = dir+"/agent", dir+"/agent"
	h.o.Poll = Poll{Interval: time.Millisecond}
	h.src.put("v1", archive(files{"etc/motd": "one"}))
	h.want("v1", nil)
	h.hooks.exit = s.exit
	h.src.put("v2", s.layer)
	h.calls = nil
	return h
}
