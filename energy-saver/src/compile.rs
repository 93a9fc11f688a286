//! From the checked tree of statements to a flat program.

use std::ops::Range;
use std::sync::Arc;

use crate::layout::{Spot, Tree};
use crate::payload_error::PayloadPlace;
use crate::program::{Case, Instruction, Operand, Program, Value};
use crate::selector::{Constant, Selector};
use crate::template::{Axis, Mapping, Statement, Switch, Target};

/// Makes the program of a template.
pub(crate) fn assemble(statements: &[Statement]) -> Program {
    let mut tree = Tree::new();
    plant(statements, &mut tree);
    let layout = tree.number();
    let mut assembler =
        Assembler { tree, instructions: Vec::new(), cases: Vec::new(), values: Vec::new() };
    assembler.block(statements);
    Program {
        instructions: assembler.instructions.into(),
        cases: assembler.cases.into(),
        values: assembler.values.into(),
        layout,
    }
}

/// Collects every asset, in the order of the template. As deep as blocks may nest.
fn plant(statements: &[Statement], tree: &mut Tree) {
    for statement in statements {
        match statement {
            Statement::Block(block) => plant(block, tree),
            Statement::Switch(switch) => {
                for (_, block) in &switch.cases {
                    plant(block, tree);
                }
                plant(&switch.default, tree);
            }
            Statement::Mapping(Mapping { asset, target, .. }) => match target {
                Target::One { .. } => tree.insert(asset.split('.')),
                Target::Composite(members) => {
                    for member in members {
                        tree.insert(asset.split('.').chain([member.name]));
                    }
                }
            },
        }
    }
}

struct Assembler {
    tree: Tree,
    instructions: Vec<Instruction>,
    cases: Vec<Case>,
    values: Vec<Value>,
}

impl Assembler {
    fn block(&mut self, statements: &[Statement]) {
        for statement in statements {
            match statement {
                Statement::Block(block) => self.block(block),
                Statement::Mapping(mapping) => self.mapping(mapping),
                Statement::Switch(switch) => self.switch(switch),
            }
        }
    }

    fn mapping(&mut self, mapping: &Mapping) {
        let asset: Arc<str> = mapping.asset.as_str().into();
        let spot = self.tree.find(mapping.asset.split('.'));
        match &mapping.target {
            Target::One { selector, axis } => {
                self.clear(&spot);
                self.store(&spot, selector, *axis, &asset);
            }
            Target::Composite(members) => {
                self.clear(&spot);
                if let Some(slot) = spot.slot {
                    self.instructions.push(Instruction::Clear { slots: slot..slot + 1 });
                }
                for member in members {
                    let spot = self.tree.find(mapping.asset.split('.').chain([member.name]));
                    let asset = format!("{asset}.{}", member.name).into();
                    self.store(&spot, &member.selector, member.axis, &asset);
                }
            }
        }
        if let Some(at) = &mapping.at {
            let value = self.value(operand(at), PayloadPlace::Asset(asset));
            self.instructions.push(Instruction::At { value });
        }
    }

    /// Forgets what a write to this spot replaces.
    fn clear(&mut self, spot: &Spot) {
        for slot in &spot.above {
            self.instructions.push(Instruction::Clear { slots: *slot..slot + 1 });
        }
        if !spot.below.is_empty() {
            self.instructions.push(Instruction::Clear { slots: spot.below.clone() });
        }
    }

    fn store(&mut self, spot: &Spot, selector: &Selector, axis: Option<Axis>, asset: &Arc<str>) {
        let value = self.value(operand(selector), PayloadPlace::Asset(asset.clone()));
        let slot = spot.slot.unwrap_or_default();
        self.instructions.push(Instruction::Store { slot, value });
        if let Some(axis) = axis {
            self.instructions.push(Instruction::Locate { axis, value });
        }
    }

    fn value(&mut self, operand: Operand, place: PayloadPlace) -> u16 {
        let index = narrow(self.values.len());
        self.values.push(Value { operand, place });
        index
    }

    fn switch(&mut self, switch: &Switch) {
        let place = PayloadPlace::Switch(switch.place.as_str().into());
        let subject = switch.subject.as_ref().map_or(Operand::PayloadLength, operand);
        let value = self.value(subject, place);
        let cases = self.reserve_cases(switch);
        let head = self.instructions.len();
        self.instructions.push(Instruction::Switch { value, cases: cases.clone(), otherwise: 0 });
        let mut leaps = Vec::new();
        for (case, (_, block)) in cases.clone().zip(&switch.cases) {
            self.cases[usize::from(case)].target = self.here();
            self.block(block);
            leaps.push(self.instructions.len());
            self.instructions.push(Instruction::Jump { target: 0 });
        }
        self.instructions[head] = Instruction::Switch { value, cases, otherwise: self.here() };
        self.block(&switch.default);
        for leap in leaps {
            self.instructions[leap] = Instruction::Jump { target: self.here() };
        }
    }

    /// Cases of one switch stand together, also where their blocks hold further switches.
    fn reserve_cases(&mut self, switch: &Switch) -> Range<u16> {
        let first = narrow(self.cases.len());
        for (constant, _) in &switch.cases {
            self.cases.push(Case { constant: constant.clone(), target: 0 });
        }
        first..narrow(self.cases.len())
    }

    fn here(&self) -> u32 {
        u32::try_from(self.instructions.len()).unwrap_or(u32::MAX)
    }
}

/// Values and cases are operations, of which there are at most 512.
fn narrow(length: usize) -> u16 {
    u16::try_from(length).unwrap_or(u16::MAX)
}

fn operand(selector: &Selector) -> Operand {
    match selector {
        Selector::Constant(constant) => rendered(constant),
        Selector::Field(field) => Operand::Field(field.clone()),
        Selector::Json(field) => Operand::Json(field.clone()),
    }
}

fn rendered(constant: &Constant) -> Operand {
    let mut json = String::new();
    constant.write(&mut json);
    Operand::Constant { constant: constant.clone(), json: json.into() }
}
