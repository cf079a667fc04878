package fsblobs

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"

	"deploytools/layers/digest"
)

// children are what this test program does when it is started again by one of
// its tests, with a directory and a number.
var children = map[string]func(dir string, n int) error{
	"work":        workForever,
	"die reading": dieReading,
	"full disk":   fullDisk,
}

func TestMain(m *testing.M) {
	if child, ok := children[os.Getenv("FSBLOBS_CHILD")]; ok {
		n, err := strconv.Atoi(os.Getenv("FSBLOBS_N"))
		if err == nil {
			err = child(os.Getenv("FSBLOBS_DIR"), n)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// startChild starts the child of this name, killed at the latest when the test
// ends, and returns the lines that it prints.
func startChild(t *testing.T, name, dir string, n int) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "FSBLOBS_CHILD="+name, "FSBLOBS_DIR="+dir, "FSBLOBS_N="+strconv.Itoa(n))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewScanner(out)
}

// content is what the n-th task of a child is about.
func content(n int) []byte {
	return bytes.Repeat([]byte(fmt.Sprintf("%08d", n)), n*7919%30_000)
}

// workForever does the tasks from the n-th on, and prints the number of each
// that is acknowledged: a Put, an upload and its Adopt, or a Put and its
// Delete.
func workForever(dir string, n int) error {
	b, s, err := Open(dir)
	if err != nil {
		return err
	}
	ctx := context.Background()
	for ; ; n++ {
		c := content(n)
		d := digest.Of(c)
		if n%3 == 1 {
			u, err := s.Create(ctx, uploadName(n))
			if err != nil {
				return err
			}
			half := len(c) / 2
			_, err1 := u.WriteAt(c[half:], int64(half))
			_, err2 := u.WriteAt(c[:half], 0)
			err = errors.Join(err1, err2, u.Sync(), u.Close(), b.Adopt(ctx, uploadName(n), d))
			if err != nil {
				return err
			}
		} else if err := b.Put(ctx, d, bytes.NewReader(c)); err != nil {
			return err
		}
		if n%3 == 2 {
			if err := b.Delete(ctx, d); err != nil {
				return err
			}
		}
		fmt.Println(n)
	}
}

func uploadName(n int) string { return "u" + strconv.Itoa(n) }

// dieReading puts a blob of 1 MiB and dies of its n-th Read.
func dieReading(dir string, n int) error {
	b, _, err := Open(dir)
	if err != nil {
		return err
	}
	c := make([]byte, 1<<20)
	return b.Put(context.Background(), digest.Of(c), dying{bytes.NewReader(c), &n})
}

type dying struct {
	r io.Reader
	n *int
}

func (d dying) Read(p []byte) (int, error) {
	if *d.n--; *d.n <= 0 {
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // until it arrives
	}
	return d.r.Read(p)
}

// fullDisk puts a blob larger than the n bytes a file may have.
func fullDisk(dir string, n int) error {
	b, _, err := Open(dir)
	if err != nil {
		return err
	}
	limit := syscall.Rlimit{Cur: uint64(n), Max: uint64(n)}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	c := make([]byte, n+1)
	if err := b.Put(context.Background(), digest.Of(c), bytes.NewReader(c)); !errors.Is(err, syscall.EFBIG) {
		return fmt.Errorf("Put = %w, want the error of the disk", err)
	}
	return b.Put(context.Background(), digest.Of(c[1:]), bytes.NewReader(c[1:]))
}
