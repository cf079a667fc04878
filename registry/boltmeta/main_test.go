package boltmeta

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"

	"deploytools/registry"
)

// children are what this test program does when it is started again by one of
// its tests; the argument is a state file.
var children = map[string]func(path string) error{
	"count":     countForever,
	"full disk": fillUp,
}

func TestMain(m *testing.M) {
	if child, ok := children[os.Getenv("BOLTMETA_CHILD")]; ok {
		if err := child(os.Getenv("BOLTMETA_PATH")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// startChild starts the child of this name, killed at the latest when the test
// ends, and returns the lines that it prints.
func startChild(t *testing.T, name, path string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "BOLTMETA_CHILD="+name, "BOLTMETA_PATH="+path)
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

// countForever adds one to a counter, leaves a trace of each number and prints
// the number once it is acknowledged.
func countForever(path string) error {
	db, err := Open(path, Options{})
	if err != nil {
		return err
	}
	for {
		var n int
		err := db.Update(context.Background(), func(tx registry.Tx) error {
			v, err := tx.Get("n")
			n, _ = strconv.Atoi(string(v))
			n++
			return errors.Join(err, tx.Put("n", []byte(strconv.Itoa(n))), tx.Put(trace(n), make([]byte, n*37%6000)),
				tx.Delete(trace(n-50)))
		})
		if err != nil {
			return err
		}
		fmt.Println(n)
	}
}

func trace(n int) string { return fmt.Sprintf("trace/%08d", n) }

// fillUp stores values until the file cannot grow, and looks at what the
// engine makes of it.
func fillUp(path string) error {
	db, err := Open(path, Options{})
	if err != nil {
		return err
	}
	limit := syscall.Rlimit{Cur: 3 << 20, Max: 3 << 20}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	store := func(i int) error {
		return db.Update(context.Background(), func(tx registry.Tx) error {
			return tx.Put(trace(i), make([]byte, 500_000))
		})
	}
	stored := 0
	for ; err == nil; stored++ {
		if err = store(stored); stored > 10 {
			return errors.New("the limit of the file size has no effect")
		}
	}
	stored--
	if !errors.Is(err, registry.ErrReadOnly) {
		return fmt.Errorf("the first failure is %w", err)
	}
	fmt.Println("first:", err)
	for range 2 {
		err = db.Update(context.Background(), func(tx registry.Tx) error { return tx.Delete(trace(0)) })
		if !errors.Is(err, registry.ErrReadOnly) {
			return fmt.Errorf("a later Update = %w", err)
		}
	}
	fmt.Println("later:", err)
	return db.View(context.Background(), func(tx registry.Tx) error {
		n := 0
		for range tx.Scan("") {
			n++
		}
		if n != stored {
			return fmt.Errorf("%d values are there, %d were acknowledged", n, stored)
		}
		return nil
	})
}
