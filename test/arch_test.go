// Package test holds what is proved from outside: the rules of the
// architecture, and the product against real peers.
package test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/ikepulse/ikepulse/"

// mayImport are the packages of this module that each package may import;
// "..." allows all below. What is not listed may import none.
var mayImport = map[string][]string{
	"bpf":                    {},
	"maps":                   {"bpf"},
	"loader":                 {"bpf", "maps", "loader/ethtool"},
	"loader/ethtool":         {},
	"ike/internal/mono":      {},
	"ike/internal/wire":      {},
	"ike/internal/suite":     {"ike/internal/wire"},
	"ike/internal/policy":    {"ike/internal/wire", "ike/internal/suite", "ike/internal/dpd"}, // a connection says how its peers are probed
	"ike/internal/sa":        {"ike/internal/wire", "ike/internal/suite", "ike/internal/policy", "ike/internal/mono"},
	"ike/internal/wheel":     {"ike/internal/mono"},
	"ike/internal/dpd":       {"ike/internal/mono"},
	"ike/internal/halfopen":  {"ike/internal/mono"},
	"ike/internal/pool":      {},
	"ike/internal/directory": {"ike/internal/pool", "ike/internal/policy", "ike/internal/mono"}, // shares and uniqueness are a connection's
	"ike/internal/shard":     {"ike/internal/..."},
	"ike":                    {"ike/internal/..."},
	"ike/udp":                {"ike", "ike/internal/wire"},
	"ike/esp":                {"ike/internal/suite", "ike/internal/wire"},
	"ike/xfrm":               {},
	"ike/barrier":            {},
	"ike/tun":                {"ike", "ike/esp", "ike/barrier", "ike/internal/..."},
	"cmd/ikepulse":           {"..."},
	"cmd/internal/...":       {"..."},
	"test/...":               {"..."},
}

// others are the modules beside ours that a package may import.
var others = map[string][]string{
	"bpf":                    {"github.com/cilium/ebpf"},
	"maps":                   {"github.com/cilium/ebpf", "golang.org/x/sys"},
	"loader":                 {"github.com/cilium/ebpf", "github.com/vishvananda/netlink", "golang.org/x/sys"},
	"loader/ethtool":         {"github.com/vishvananda/netlink", "golang.org/x/sys"},
	"ike/internal/mono":      {},
	"ike/internal/wire":      {},
	"ike/internal/suite":     {"golang.org/x/crypto", "filippo.io/bigmod"},
	"ike/internal/policy":    {},
	"ike/internal/sa":        {},
	"ike/internal/wheel":     {},
	"ike/internal/dpd":       {},
	"ike/internal/halfopen":  {},
	"ike/internal/pool":      {},
	"ike/internal/directory": {},
	"ike/internal/shard":     {},
	"ike":                    {"golang.org/x/sys"},
	"ike/udp":                {"golang.org/x/net", "golang.org/x/sys"},
	"ike/esp":                {},
	"ike/xfrm":               {"github.com/vishvananda/netlink", "golang.org/x/sys"},
	"ike/barrier": {"github.com/vishvananda/netlink", "github.com/google/nftables", "github.com/mdlayher/netlink",
		"golang.org/x/sys"},
	"ike/tun": {"github.com/vishvananda/netlink", "golang.org/x/sys"},
}

// pure packages neither read a clock nor start a goroutine, open nothing and
// log nothing: what they need is an argument.
var pure = []string{"ike/internal/mono", "ike/internal/wire", "ike/internal/suite", "ike/internal/policy", "ike/internal/sa",
	"ike/internal/wheel", "ike/internal/dpd", "ike/internal/halfopen", "ike/internal/pool", "ike/internal/directory",
	"ike/esp"}

// impure are imports and selectors that a pure package may not use.
var impure = []string{"os", "log", "net", "net/http", "syscall", "unsafe", "crypto/rand", "math/rand"}

var clocks = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick"}

// unsafeFiles are the reviewed files that may import unsafe.
var unsafeFiles = []string{"maps/words.go", "cmd/internal/control/caller.go"}

// source is one Go file that is built into the product or a test tool.
type source struct {
	path, pkg string
	file      *ast.File
	fset      *token.FileSet
}

func sources(t *testing.T) (out []source) {
	root := ".."
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() && (d.Name() == ".git" || d.Name() == "testdata") {
			return filepathSkip(d, err)
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		out = append(out, source{rel, filepath.ToSlash(filepath.Dir(rel)), f, fset})
		return nil
	})
	if err != nil || len(out) < 100 {
		t.Fatalf("%d files, %v", len(out), err)
	}
	return out
}

func filepathSkip(d fs.DirEntry, err error) error {
	if err != nil {
		return err
	}
	return filepath.SkipDir
}

func imports(f *ast.File) (out []string) {
	for _, i := range f.Imports {
		path, _ := strconv.Unquote(i.Path.Value)
		out = append(out, path)
	}
	return out
}

// lookup finds the rule for a package, by its own name or that of a parent
// with "/...".
func lookup(rules map[string][]string, pkg string) ([]string, bool) {
	if r, ok := rules[pkg]; ok {
		return r, true
	}
	for dir := pkg; dir != "."; dir = filepath.Dir(dir) {
		if r, ok := rules[dir+"/..."]; ok {
			return r, true
		}
	}
	return nil, false
}

func allowed(list []string, path string) bool {
	return slices.ContainsFunc(list, func(rule string) bool {
		prefix, all := strings.CutSuffix(rule, "...")
		return rule == path || all && strings.HasPrefix(path, prefix)
	})
}

func TestArrows(t *testing.T) {
	for _, s := range sources(t) {
		rule, ok := lookup(mayImport, s.pkg)
		if !ok {
			t.Errorf("%s: no rule says what package %s may import", s.path, s.pkg)
			continue
		}
		for _, path := range imports(s.file) {
			if own, ok := strings.CutPrefix(path, module); ok {
				if !allowed(rule, own) {
					t.Errorf("%s may not import %s", s.path, own)
				}
				continue
			}
			list, limited := others[s.pkg]
			if limited && strings.Contains(strings.Split(path, "/")[0], ".") &&
				!slices.ContainsFunc(list, func(m string) bool { return path == m || strings.HasPrefix(path, m+"/") }) {
				t.Errorf("%s may not import %s", s.path, path)
			}
		}
	}
}

func TestPurePackages(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range sources(t) {
		if !slices.Contains(pure, s.pkg) {
			continue
		}
		seen[s.pkg] = true
		for _, path := range imports(s.file) {
			if slices.Contains(impure, path) && !(path == "log/slog") {
				t.Errorf("%s is pure and imports %s", s.path, path)
			}
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				t.Errorf("%v: a pure package starts a goroutine", s.fset.Position(n.Pos()))
			case *ast.SelectorExpr:
				if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" && slices.Contains(clocks, n.Sel.Name) {
					t.Errorf("%v: a pure package calls time.%s", s.fset.Position(n.Pos()), n.Sel.Name)
				}
			}
			return true
		})
	}
	for _, p := range pure {
		if !seen[p] {
			t.Errorf("no file of the pure package %s was read", p)
		}
	}
}

// TestNoShell: the product starts no program but itself.
func TestNoShell(t *testing.T) {
	for _, s := range sources(t) {
		if strings.HasPrefix(s.pkg, "test") && s.pkg != "test/lab" {
			continue
		}
		if slices.Contains(imports(s.file), "os/exec") && s.pkg != "test/lab" {
			t.Errorf("%s imports os/exec", s.path)
		}
	}
}

func TestUnsafeIsInReviewedFiles(t *testing.T) {
	for _, s := range sources(t) {
		if strings.HasPrefix(s.pkg, "test") || s.pkg == "bpf" {
			continue
		}
		if slices.Contains(imports(s.file), "unsafe") && !slices.Contains(unsafeFiles, s.path) {
			t.Errorf("%s imports unsafe", s.path)
		}
	}
}

// TestRandomness: what an attacker must not guess comes from crypto/rand.
func TestRandomness(t *testing.T) {
	for _, s := range sources(t) {
		for _, path := range imports(s.file) {
			if strings.HasPrefix(path, "math/rand") && !strings.HasPrefix(s.pkg, "test") {
				t.Errorf("%s imports %s", s.path, path)
			}
		}
	}
}

// TestTopLevel: what stands in the root is what the customer fixed.
func TestTopLevel(t *testing.T) {
	want := []string{"LICENSE", "Makefile", "README.md", "bpf", "cmd", "go.mod", "go.sum", "ike", "loader", "maps", "test"}
	entries, err := os.ReadDir("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		name := e.Name()
		if !strings.HasPrefix(name, ".") && !slices.Contains(want, name) && name != "ikepulse" && name != "build" {
			t.Errorf("%s stands in the top level", name)
		}
	}
}
