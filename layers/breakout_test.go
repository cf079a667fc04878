package layers

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// attack is archives of which the last must be refused with one message.
type attack struct {
	archives [][]byte
	want     string
}

func one(want string, parts ...[]byte) attack { return attack{[][]byte{tarball(parts...)}, want} }

func two(want string, lower, upper []byte) attack { return attack{[][]byte{lower, upper}, want} }

// breakouts try to read or write outside the root. outside is a directory there,
// which lies beside the root.
func breakouts(outside string) map[string]attack {
	long := strings.Repeat("../", 50) + "outside/pwn"
	return map[string]attack{
		// Names.
		"B-58 dot dot":           one(`layer web:1: entry 1 "../outside/pwn": name has the component ".."`, reg("../outside/pwn", "x")),
		"dot dot inside":         one(`layer web:1: entry 2 "a/../b": name has the component ".."`, folder("a/"), reg("a/../b", "x")),
		"dot dot after dot":      one(`layer web:1: entry 1 "./../outside/pwn": name has the component ".."`, reg("./../outside/pwn", "x")),
		"dot dot directory":      one(`layer web:1: entry 1 "../": name has the component ".."`, folder("../", mode(0o777))),
		"dot dot symlink":        one(`layer web:1: entry 1 "../pwn": name has the component ".."`, sym("../pwn", "x")),
		"absolute":               one(`layer web:1: entry 1 "`+outside+`/pwn": name is absolute`, reg(outside+"/pwn", "x")),
		"absolute after dot":     one(`layer web:1: entry 1 ".//outside/pwn": name doubles a slash`, reg(".//outside/pwn", "x")),
		"double slash":           one(`layer web:1: entry 1 "a//b": name doubles a slash`, reg("a//b", "x")),
		"dot inside":             one(`layer web:1: entry 1 "a/./b": name has the component "."`, reg("a/./b", "x")),
		"empty name":             one(`layer web:1: entry 1: name is empty`, reg("", "x")),
		"empty name, directory":  one(`layer web:1: entry 1 "./": name is empty`, reg("./", "x")),
		"the top as a file":      one(`layer web:1: entry 1 ".": name has the component "."`, reg(".", "x")),
		"the top as a symlink":   one(`layer web:1: entry 1 ".": name has the component "."`, sym(".", outside)),
		"the top as a hard link": one(`layer web:1: entry 2 ".": name has the component "."`, reg("a", "x"), hard(".", "a")),
		"slash behind a file":    one(`layer web:1: entry 1 "a/": name ends in a slash`, reg("a/", "x")),
		"slash behind a symlink": one(`layer web:1: entry 1 "a/": name ends in a slash`, sym("a/", outside)),
		"two slashes behind":     one(`layer web:1: entry 1 "a//": name ends in a slash`, folder("a//")),
		"newline":                one(`layer web:1: entry 1 "a\nb": name holds a control character`, reg("a\nb", "x")),
		"escape":                 one(`layer web:1: entry 1 "\x1b[2J": name holds a control character`, reg("\x1b[2J", "x")),
		"delete":                 one(`layer web:1: entry 1 "a\x7f": name holds a control character`, reg("a\x7f", "x")),

		// The same by longer ways to give a name.
		"dot dot by pax":         one(`layer web:1: entry 1 "../outside/pwn": name has the component ".."`, pax("path=../outside/pwn"), reg("ok", "x")),
		"absolute by pax":        one(`layer web:1: entry 1 "/pwn": name is absolute`, pax("path=/pwn"), reg("ok", "x")),
		"dot dot by GNU":         one(`layer web:1: entry 1 "`+long+`": name has the component ".."`, ext('L', long+"\x00"), reg("ok", "x", gnu)),
		"dot dot by a prefix":    one(`layer web:1: entry 1 "../outside/pwn": name has the component ".."`, reg("outside/pwn", "x", field(345, 500, ".."))),
		"dot dot by sparse name": one(`layer web:1: entry 1 "../pwn": name has the component ".."`, sparse1("../pwn", "ok", "x")),
		"NUL by pax":             one(`layer web:1: entry 1: pax record "path" is empty or holds a NUL`, pax("path=ok\x00../pwn"), reg("ok", "x")),
		"NUL by GNU":             one(`layer web:1: entry 1: long name holds a NUL`, ext('L', "ok\x00../pwn"), reg("ok", "x", gnu)),
		"NUL in a target by pax": one(`layer web:1: entry 1: pax record "linkpath" is empty or holds a NUL`, pax("linkpath=ok\x00../pwn"), sym("a", "x")),
		"control by pax":         one(`layer web:1: entry 1 "a\rb": name holds a control character`, pax("path=a\rb"), reg("ok", "x")),

		// Through a symlink.
		"B-59 write through a symlink": one(`layer web:1: entry 2 "s/pwn": goes through the symlink "s" (entry 1)`, sym("s", "../outside"), reg("s/pwn", "x")),
		"absolute symlink":             one(`layer web:1: entry 2 "s/pwn": goes through the symlink "s" (entry 1)`, sym("s", outside), reg("s/pwn", "x")),
		"harmless symlink":             one(`layer web:1: entry 3 "s/a": goes through the symlink "s" (entry 2)`, folder("d/"), sym("s", "d"), reg("s/a", "x")),
		"symlink deep in the path":     one(`layer web:1: entry 2 "a/s/b/c": goes through the symlink "a/s" (entry 1)`, sym("a/s", "/"), reg("a/s/b/c", "x")),
		"symlink to itself":            one(`layer web:1: entry 2 "s/a": goes through the symlink "s" (entry 1)`, sym("s", "s"), reg("s/a", "x")),
		"hard link through a symlink":  one(`layer web:1: entry 3 "s/pwn": goes through the symlink "s" (entry 2)`, reg("a", "x"), sym("s", "../outside"), hard("s/pwn", "a")),
		"link to a symlink, then through it": one(`layer web:1: entry 3 "t/pwn": goes through the symlink "t" (entry 2)`,
			sym("s", "../outside"), hard("t", "s"), reg("t/pwn", "x")),
		"directory over a symlink": one(`layer web:1: entry 2 "s/": is a directory here, but already a symlink (entry 1)`, sym("s", "../outside"), folder("s/"), reg("s/pwn", "x")),
		"file over a symlink":      one(`layer web:1: entry 2 "s": is a file here, but already a symlink (entry 1)`, sym("s", "../outside/secret"), reg("s", "x")),
		"symlink over a directory": one(`layer web:1: entry 2 "s": is a symlink here, but already a directory (entry 1)`, folder("s/"), sym("s", "../outside"), reg("s/pwn", "x")),
		"symlink over the directory of an entry": one(`layer web:1: entry 2 "s": is a symlink here, but already a directory (because an earlier entry lies in it)`,
			reg("s/a", "x"), sym("s", "../outside")),
		"file as a directory": one(`layer web:1: entry 2 "a/b": goes through the file "a" (entry 1)`, reg("a", "x"), reg("a/b", "x")),

		// Hard links.
		"B-60 hard link by dot dot":          one(`layer web:1: entry 1 "h": target "../outside/secret" of the hard link: name has the component ".."`, hard("h", "../outside/secret")),
		"absolute hard link":                 one(`layer web:1: entry 1 "h": target "`+outside+`/secret" of the hard link: name is absolute`, hard("h", outside+"/secret")),
		"hard link by pax":                   one(`layer web:1: entry 1 "h": target "../outside/secret" of the hard link: name has the component ".."`, pax("linkpath=../outside/secret"), hard("h", "ok")),
		"hard link to nothing":               one(`layer web:1: entry 1 "h": target "a" of the hard link is no earlier file or symlink of this layer`, hard("h", "a")),
		"hard link to what comes":            one(`layer web:1: entry 1 "h": target "a" of the hard link is no earlier file or symlink of this layer`, hard("h", "a"), reg("a", "x")),
		"hard link to a directory":           one(`layer web:1: entry 2 "h": target "a" of the hard link is no earlier file or symlink of this layer`, folder("a/"), hard("h", "a")),
		"hard link to the top":               one(`layer web:1: entry 1 "h": target "." of the hard link: name has the component "."`, hard("h", ".")),
		"hard link without target":           one(`layer web:1: entry 1 "h": target "" of the hard link: name is empty`, hard("h", "")),
		"hard link's target by a symlink":    one(`layer web:1: entry 2 "h": target "s/secret" of the hard link is no earlier file or symlink of this layer`, sym("s", "../outside"), hard("h", "s/secret")),
		"hard link to itself":                one(`layer web:1: entry 3 "h": hard link to itself`, reg("a", "x"), hard("h", "a"), hard("h", "h")),
		"file over a hard link's name":       one(`layer web:1: entry 3 "h": is a file here, but already a hard link (entry 2)`, reg("a", "x"), hard("h", "a"), reg("h", "y")),
		"hard link to a file of a lower":     two(`layer web:2: entry 1 "h": target "a" of the hard link is no earlier file or symlink of this layer`, tarball(reg("a", "x")), tarball(hard("h", "a"))),
		"hard link to a lower's symlink":     two(`layer web:2: entry 1 "h": target "s" of the hard link is no earlier file or symlink of this layer`, tarball(sym("s", outside)), tarball(hard("h", "s"))),
		"through a lower's symlink":          two(`layer web:2: entry 1 "s/pwn": goes through the symlink "s" (of an earlier layer)`, tarball(sym("s", "../outside")), tarball(reg("s/pwn", "x"))),
		"directory through a lower's link":   two(`layer web:2: entry 1 "s/d/": goes through the symlink "s" (of an earlier layer)`, tarball(sym("s", "../outside")), tarball(folder("s/d/"))),
		"hard link through a lower's link":   two(`layer web:2: entry 2 "s/h": goes through the symlink "s" (of an earlier layer)`, tarball(sym("s", "../outside")), tarball(reg("a", "x"), hard("s/h", "a"))),
		"through a link to a lower's link":   two(`layer web:2: entry 1 "t/pwn": goes through the symlink "t" (of an earlier layer)`, tarball(sym("s", "../outside"), hard("t", "s")), tarball(reg("t/pwn", "x"))),
		"through a lower's dangling symlink": two(`layer web:2: entry 1 "s/pwn": goes through the symlink "s" (of an earlier layer)`, tarball(sym("s", "nothing")), tarball(reg("s/pwn", "x"))),
	}
}

// sparse1 is a sparse file of form 1.0 with content at its start and a hole
// behind; stored is its name in the header.
func sparse1(name, stored, content string) []byte {
	return join(
		pax("GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name="+name, "GNU.sparse.realsize=1048576"),
		head('0', stored, size(int64(512+len(content)))), data("1\n0\n"+strconv.Itoa(len(content))+"\n"), data(content))
}

func TestBreakoutsAreRefused(t *testing.T) {
	for name, b := range breakouts("/x") {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			if strings.Contains(b.want, `/x`) { // the true place, for those that name it
				b = breakouts(w.outside)[name]
			}
			w.refused(t, Options{}, b.want, b.archives...)
		})
	}
}

func TestNothingOfARefusedLayerIsLeftToTheCaller(t *testing.T) {
	w := newWorld(t)
	o := Options{}
	archive := tarball(pax("SCHILY.xattr.user.a=b"), reg("a", "x"), reg("../b", "x"))
	info, err := w.stack(t, o, archive)
	if info != nil || err == nil {
		t.Errorf("Unpack = %v, %v, want no Info", info, err)
	}
	checked, err := Check(t.Context(), "web:1", strings.NewReader(string(archive)), o)
	if err == nil || checked.Entries != 0 || checked.Unpacked != 0 || checked.Warnings != nil {
		t.Errorf("Check = %+v, %v, want digest and size only", checked, err)
	}
	// What is left is the caller's to remove, whatever the archive wanted.
	must(t, os.RemoveAll(w.root))
}

// What looks like an attack and is none must work: targets are text.
func TestSymlinksAreText(t *testing.T) {
	w := newWorld(t)
	long := strings.Repeat("x/", 2047)
	w.accepted(t, Options{}, tarball(
		sym("abs", w.outside), sym("up", "../../.."), sym("loop", "loop"), sym("secret", "../outside/secret"),
		sym("esc", "\x1b[2J"), pax("linkpath="+long), sym("long", "x"), hard("same", "secret")))
	for name, want := range map[string]string{"abs": w.outside, "up": "../../..", "loop": "loop", "esc": "\x1b[2J", "long": long, "same": "../outside/secret"} {
		if got, err := os.Readlink(filepath.Join(w.root, name)); got != want || err != nil {
			t.Errorf("Readlink(%s) = %q, %v, want %q", name, got, err, want)
		}
	}
}

// The layers above may replace what would have been written through.
func TestAnUpperLayerReplacesALowerSymlink(t *testing.T) {
	secret := "../outside/secret"
	for name, test := range map[string]struct {
		lower, upper []byte
		want         string
	}{
		"B-61 file":          {tarball(sym("s", secret)), tarball(reg("s", "mine")), "s -rw-r--r-- mine\n"},
		"B-61 sparse file":   {tarball(sym("s", secret)), tarball(pax("GNU.sparse.size=4", "GNU.sparse.numblocks=1", "GNU.sparse.map=0,4"), reg("s", "mine")), "s -rw-r--r-- mine\n"},
		"symlink":            {tarball(sym("s", secret)), tarball(sym("s", "other")), "s Lrwxrwxrwx -> other\n"},
		"directory":          {tarball(sym("s", "../outside")), tarball(folder("s/"), reg("s/in", "x")), "s drwxr-xr-x\ns/in -rw-r--r-- x\n"},
		"directory, later":   {tarball(sym("s", "../outside")), tarball(reg("a", "x"), folder("s/"), reg("s/in", "x")), "a -rw-r--r-- x\ns drwxr-xr-x\ns/in -rw-r--r-- x\n"},
		"hard link":          {tarball(sym("s", secret)), tarball(reg("a", "mine"), hard("s", "a")), "a -rw-r--r-- mine\ns -rw-r--r-- mine\n"},
		"B-62 mode":          {tarball(reg("a", "x", mode(0o755))), tarball(reg("a", "y", mode(0o640))), "a -rw-r----- y\n"},
		"B-62 sibling":       {tarball(reg("a", "x", mode(0o755)), hard("b", "a")), tarball(reg("a", "y", mode(0o640))), "a -rw-r----- y\nb -rwxr-xr-x x\n"},
		"B-63 file over dir": {tarball(folder("d/"), folder("d/e/"), reg("d/e/f", "x")), tarball(reg("d", "y")), "d -rw-r--r-- y\n"},
		"B-63 dir over file": {tarball(reg("d", "y")), tarball(folder("d/"), reg("d/e", "x")), "d drwxr-xr-x\nd/e -rw-r--r-- x\n"},
		"path over file":     {tarball(reg("d", "y")), tarball(reg("d/e/f", "x")), "d drwxr-xr-x\nd/e drwxr-xr-x\nd/e/f -rw-r--r-- x\n"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.accepted(t, Options{}, test.lower, test.upper)
			if got := w.tree(t); got != test.want {
				t.Errorf("tree\n%swant\n%s", got, test.want)
			}
		})
	}
}
