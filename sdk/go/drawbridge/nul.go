package drawbridge

import (
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// findNUL is the path of a string field that contains NUL, also as the key of a map; empty without
// one. C code ends a string at NUL, so it is not a valid character here. Fields of the type bytes
// may contain it.
func findNUL(message protoreflect.Message) string {
	found := ""
	message.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		within, isFound := "", false
		switch {
		case field.IsMap():
			within, isFound = findInMap(field, value.Map())
		case field.IsList():
			list := value.List()
			for index := 0; index < list.Len() && !isFound; index++ {
				within, isFound = findInValue(field, list.Get(index))
			}
		default:
			within, isFound = findInValue(field, value)
		}
		if isFound {
			found = join(string(field.Name()), within)
		}
		return !isFound
	})
	return found
}

func findInMap(field protoreflect.FieldDescriptor, values protoreflect.Map) (string, bool) {
	within, isFound := "", false
	values.Range(func(key protoreflect.MapKey, value protoreflect.Value) bool {
		if _, isFound = findInValue(field.MapKey(), key.Value()); isFound {
			within = "key"
			return false
		}
		if within, isFound = findInValue(field.MapValue(), value); isFound {
			within = join("value", within)
		}
		return !isFound
	})
	return within, isFound
}

// findInValue is the path within a value, which is empty for a string, and whether NUL is there.
func findInValue(field protoreflect.FieldDescriptor, value protoreflect.Value) (string, bool) {
	switch field.Kind() {
	case protoreflect.StringKind:
		return "", strings.IndexByte(value.String(), 0) >= 0
	case protoreflect.MessageKind, protoreflect.GroupKind:
		within := findNUL(value.Message())
		return within, within != ""
	default:
		return "", false
	}
}

func join(field, within string) string {
	if within == "" {
		return field
	}
	return field + "." + within
}
