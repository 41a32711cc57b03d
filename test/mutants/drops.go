package main

import (
	"go/ast"
	"go/token"
)

// dropEach drops each statement of a block that can be. It stays where nothing
// comes to it, so that its variables are used and the file compiles.
func (m *mutator) dropEach(list []ast.Stmt) {
	for _, s := range list {
		switch s := s.(type) {
		case *ast.ExprStmt, *ast.GoStmt, *ast.DeferStmt, *ast.SendStmt, *ast.IncDecStmt:
			m.drop(s, "if false { "+m.of(s)+" }")
		case *ast.AssignStmt:
			m.dropAssignment(s)
		}
	}
}

func (m *mutator) drop(s ast.Stmt, text string) { m.add(s, "", s.Pos(), s.End(), text) }

func (m *mutator) dropAssignment(s *ast.AssignStmt) {
	switch {
	case s.Tok == token.DEFINE || isBlank(s.Lhs[0]) && len(s.Lhs) == 1:
	case len(s.Lhs) > 1:
		m.dropTargets(s)
	case calls(s.Rhs[0]):
		evaluated := "_ = " + m.of(s.Rhs[0])
		m.add(s, evaluated, s.Pos(), s.End(), evaluated+"; if false { "+m.of(s)+" }")
	default:
		m.drop(s, "if false { "+m.of(s)+" }")
	}
}

// dropTargets drops each part of an assignment to several.
func (m *mutator) dropTargets(s *ast.AssignStmt) {
	for _, x := range s.Lhs {
		if !isBlank(x) {
			m.replace(s, x.Pos(), x.End(), "_")
		}
	}
}

func isBlank(e ast.Expr) bool {
	x, ok := e.(*ast.Ident)
	return ok && x.Name == "_"
}

// dropPart drops what stands before or behind the condition of an if, a for or a
// switch, where no block can be.
func (m *mutator) dropPart(s ast.Stmt) {
	switch s := s.(type) {
	case *ast.ExprStmt, *ast.SendStmt, *ast.IncDecStmt:
		m.drop(s, "")
	case *ast.AssignStmt:
		switch {
		case s.Tok == token.DEFINE:
		case s.Tok == token.ASSIGN:
			m.dropTargets(s)
		default:
			m.replace(s, s.Pos(), s.Rhs[0].Pos(), "_ = ")
		}
	}
}
