//! `calculation`: an expression over `val`, compiled to a small stack program over doubles.

use crate::CALCULATION_BYTES_MAX;
use crate::compile_error::{CompileError, CompileReason, Place};

/// Most values that wait on the stack at once, and deepest nesting of parentheses and signs: far
/// beyond the known calculations, which need two.
const STACK_MAX: usize = 16;

/// A compiled expression.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Calculation(Box<[Step]>);

#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    Value,
    Number(f64),
    Negate,
    Add,
    Subtract,
    Multiply,
    Divide,
}

impl Calculation {
    /// Compiles `+ - * /`, parentheses, decimal numbers and `val`.
    pub(crate) fn compile(text: &str, place: &Place<'_>) -> Result<Self, CompileError> {
        place.limit("calculation length in bytes", text.len(), CALCULATION_BYTES_MAX)?;
        let mut parser = Parser { text, position: 0, steps: Vec::new(), place };
        parser.sum(0)?;
        if parser.peek().is_some() {
            return Err(parser.unexpected("an operator: + - * /"));
        }
        let waiting = deepest_stack(&parser.steps);
        place.limit("calculation stack", waiting, STACK_MAX)?;
        Ok(Self(parser.steps.into()))
    }

    /// How many steps it takes.
    pub(crate) fn steps(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    /// The result for one value. Division by zero gives an infinity, as in JavaScript.
    pub(crate) fn apply(&self, value: f64) -> f64 {
        let mut stack = [0.0_f64; STACK_MAX];
        // `top` counts the waiting values; `compile` has checked that it stays within the array.
        let mut top = 0_usize;
        for step in &self.0 {
            let operand = match step {
                Step::Value => Some(value),
                Step::Number(number) => Some(*number),
                _ => None,
            };
            if let Some(operand) = operand {
                stack[top] = operand;
                top += 1;
                continue;
            }
            let right = stack[top - 1];
            if *step == Step::Negate {
                stack[top - 1] = -right;
                continue;
            }
            top -= 1;
            let left = stack[top - 1];
            stack[top - 1] = match step {
                Step::Add => left + right,
                Step::Subtract => left - right,
                Step::Multiply => left * right,
                _ => left / right,
            };
        }
        stack[0]
    }
}

/// The most values that wait at once while `steps` run.
fn deepest_stack(steps: &[Step]) -> usize {
    let mut waiting = 0_usize;
    let mut deepest = 0;
    for step in steps {
        match step {
            Step::Value | Step::Number(_) => waiting += 1,
            Step::Negate => {}
            _ => waiting = waiting.saturating_sub(1),
        }
        deepest = deepest.max(waiting);
    }
    deepest
}

struct Parser<'a> {
    text: &'a str,
    position: usize,
    steps: Vec<Step>,
    place: &'a Place<'a>,
}

impl Parser<'_> {
    fn sum(&mut self, depth: usize) -> Result<(), CompileError> {
        self.product(depth)?;
        loop {
            let step = match self.peek() {
                Some('+') => Step::Add,
                Some('-') => Step::Subtract,
                _ => return Ok(()),
            };
            self.position += 1;
            self.product(depth)?;
            self.steps.push(step);
        }
    }

    fn product(&mut self, depth: usize) -> Result<(), CompileError> {
        self.signed(depth)?;
        loop {
            let step = match self.peek() {
                Some('*') => Step::Multiply,
                Some('/') => Step::Divide,
                _ => return Ok(()),
            };
            self.position += 1;
            self.signed(depth)?;
            self.steps.push(step);
        }
    }

    fn signed(&mut self, depth: usize) -> Result<(), CompileError> {
        self.place.limit("calculation depth", depth, STACK_MAX)?;
        match self.peek() {
            Some('-') => {
                self.position += 1;
                self.signed(depth + 1)?;
                self.steps.push(Step::Negate);
                Ok(())
            }
            Some('+') => {
                self.position += 1;
                self.signed(depth + 1)
            }
            Some('(') => {
                self.position += 1;
                self.sum(depth + 1)?;
                if self.peek() != Some(')') {
                    return Err(self.unexpected("an operator or )"));
                }
                self.position += 1;
                Ok(())
            }
            _ => self.operand(),
        }
    }

    fn operand(&mut self) -> Result<(), CompileError> {
        let expected = "val, a number or (";
        if self.peek().is_none() {
            return Err(self.unexpected(expected));
        }
        let rest = &self.text[self.position..];
        let word = |char: char| char.is_ascii_alphanumeric() || char == '_' || char == '.';
        let length = rest.find(|char| !word(char)).unwrap_or(rest.len());
        let token = &rest[..length];
        let step = if token == "val" {
            Step::Value
        } else if token.starts_with(|char: char| char.is_ascii_digit() || char == '.') {
            // Rust also reads `inf` and `nan`; they do not start with a digit.
            Step::Number(token.parse().map_err(|_| self.unexpected(expected))?)
        } else {
            return Err(self.unexpected(expected));
        };
        self.position += length;
        self.steps.push(step);
        Ok(())
    }

    /// The next character that is not a space.
    fn peek(&mut self) -> Option<char> {
        let rest = &self.text[self.position..];
        self.position += rest.len() - rest.trim_start().len();
        self.text[self.position..].chars().next()
    }

    fn unexpected(&self, expected: &'static str) -> CompileError {
        let found = match self.text[self.position..].chars().next() {
            Some(found) => format!("{found:?}"),
            None => "the end".to_owned(),
        };
        let position = self.position + 1;
        self.place.error(CompileReason::Calculation { found, position, expected })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(text: &str, value: f64) -> f64 {
        Calculation::compile(text, &Place::Root).unwrap().apply(value)
    }

    fn refusal(text: &str) -> String {
        Calculation::compile(text, &Place::Root).unwrap_err().to_string()
    }

    #[test]
    fn known_calculations_give_their_results() {
        let pairs = [
            ("val", 7.0),
            ("val/100", 0.07),
            ("val / 10", 0.7),
            ("val*0.036", 7.0 * 0.036),
            ("val - 2 - 1", 4.0),
            ("val / 2 / 2", 1.75),
            ("1 + val * 2", 15.0),
            ("(1 + val) * 2", 16.0),
            ("-val + 1", -6.0),
            ("2 * -(val - 10)", 6.0),
            ("val * .5", 3.5),
            ("val * 1e3", 7_000.0),
        ];
        for (text, expected) in pairs {
            assert_eq!(result(text, 7.0), expected, "{text}");
        }
        assert!(result("1/(val-7)", 7.0).is_infinite());
    }

    #[test]
    fn a_wrong_calculation_says_where() {
        assert_eq!(
            refusal("val +"),
            "template: the end at position 6 of the calculation, expected val, a number or ("
        );
        assert_eq!(
            refusal("val ^ 2"),
            "template: '^' at position 5 of the calculation, expected an operator: + - * /"
        );
        assert!(refusal("value").contains("'v' at position 1"));
        assert!(refusal("1.2.3").contains("'1' at position 1"));
        assert!(refusal("(val").contains("expected an operator or )"));
        assert!(refusal("").contains("the end at position 1"));
        assert!(refusal("inf").contains("'i'"));
        assert!(refusal("val €").contains("'€'"));
    }

    #[test]
    fn size_and_depth_are_limited() {
        assert!(refusal(&"1".repeat(257)).contains("of 257 exceeds the limit of 256"));
        let nested = format!("{}val{}", "(".repeat(17), ")".repeat(17));
        assert!(refusal(&nested).contains("depth of 17 exceeds the limit of 16"));
        let waiting = format!("{}val{}", "1+(".repeat(16), ")".repeat(16));
        assert!(refusal(&waiting).contains("stack of 17 exceeds the limit of 16"));
        assert!(refusal(&"-".repeat(200)).contains("limit of 16"));
    }
}
