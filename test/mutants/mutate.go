package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
)

// mutate gives the mutants of a file in the order of their places; none if it
// is generated.
func mutate(name string, source []byte) ([]*mutant, error) {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, name, source, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil || ast.IsGenerated(f) {
		return nil, err
	}
	m := &mutator{name: name, source: source, fset: fset, done: map[ast.Expr]bool{}}
	for _, d := range f.Decls {
		m.function = functionName(d)
		ast.Walk(within{mutator: m}, d)
	}
	slices.SortStableFunc(m.found, func(a, b *mutant) int { return a.at.Offset - b.at.Offset })
	number(m.found)
	return m.found, nil
}

// functionName is that of a declaration; of a method it is Type.Method.
func functionName(d ast.Decl) string {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Recv == nil {
			return d.Name.Name
		}
		return receiver(d.Recv.List[0].Type) + "." + d.Name.Name
	case *ast.GenDecl:
		if v, ok := d.Specs[0].(*ast.ValueSpec); ok {
			return v.Names[0].Name
		}
	}
	return ""
}

func receiver(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.IndexListExpr:
		return receiver(e.X)
	}
	return e.(*ast.Ident).Name
}

// mutator collects the mutants of a file.
type mutator struct {
	name, function string
	source         []byte
	fset           *token.FileSet
	done           map[ast.Expr]bool // conditions that have their mutants already
	found          []*mutant
}

// within walks one function.
type within struct {
	*mutator
	results []bool // which of its results are bools
}

func (w within) Visit(n ast.Node) ast.Visitor {
	switch n := n.(type) {
	case *ast.FuncDecl:
		return within{w.mutator, bools(n.Type)}
	case *ast.FuncLit:
		return within{w.mutator, bools(n.Type)}
	case *ast.ReturnStmt:
		w.returned(n)
	case ast.Stmt:
		w.statement(n)
	case ast.Expr:
		w.expression(n)
	}
	return w
}

// bools tells which results of a function are bools.
func bools(f *ast.FuncType) (is []bool) {
	if f.Results == nil {
		return nil
	}
	for _, r := range f.Results.List {
		t, ok := r.Type.(*ast.Ident)
		for range max(1, len(r.Names)) {
			is = append(is, ok && t.Name == "bool")
		}
	}
	return is
}

func (w within) statement(s ast.Stmt) {
	switch s := s.(type) {
	case *ast.BlockStmt:
		w.dropEach(s.List)
	case *ast.CaseClause:
		w.dropEach(s.Body)
	case *ast.CommClause:
		w.dropEach(s.Body)
	case *ast.LabeledStmt:
		w.dropEach([]ast.Stmt{s.Stmt})
	case *ast.IfStmt:
		w.dropPart(s.Init)
		w.condition(s.Cond)
	case *ast.ForStmt:
		w.dropPart(s.Init)
		w.condition(s.Cond)
		w.dropPart(s.Post)
	case *ast.TypeSwitchStmt:
		w.dropPart(s.Init)
	case *ast.SwitchStmt:
		w.dropPart(s.Init)
		if s.Tag != nil {
			return
		}
		for _, c := range s.Body.List {
			for _, e := range c.(*ast.CaseClause).List {
				w.condition(e)
			}
		}
	}
}

func (m *mutator) offset(p token.Pos) int { return m.fset.Position(p).Offset }

// text is the source from one place to another.
func (m *mutator) text(from, to token.Pos) string {
	return string(m.source[m.offset(from):m.offset(to)])
}

func (m *mutator) of(n ast.Node) string { return m.text(n.Pos(), n.End()) }

// add notes that text takes the place of the source from one place to another,
// which is part of what is shown.
func (m *mutator) add(shownAt ast.Node, becomes string, from, to token.Pos, text string) {
	m.found = append(m.found, &mutant{
		file: m.name, at: m.fset.Position(from), function: m.function,
		old: shown(m.of(shownAt)), new: shown(becomes),
		start: m.offset(from), end: m.offset(to), text: text,
	})
}

// replace notes that part of whole becomes text.
func (m *mutator) replace(whole ast.Node, from, to token.Pos, text string) {
	becomes := m.text(whole.Pos(), from) + text + m.text(to, whole.End())
	m.add(whole, becomes, from, to, text)
}

// calls reports whether something may happen where e is evaluated.
func calls(e ast.Expr) (yes bool) {
	ast.Inspect(e, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			yes = true
		case *ast.UnaryExpr:
			yes = yes || n.Op == token.ARROW
		case *ast.FuncLit:
			return false
		}
		return true
	})
	return yes
}
