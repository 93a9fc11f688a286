//! Compiled programs of versions.

use std::sync::Arc;

use arc_swap::ArcSwap;
use energy_saver::Program;

/// Most programs that are kept compiled. Two are active; the others belong to stored messages of
/// earlier days. A program takes some kilobytes, at the very most about 100.
const PROGRAMS_MAX: usize = 64;

/// The latest programs that were asked for. Reading takes no lock.
#[derive(Debug, Default)]
pub(crate) struct ProgramCache {
    /// In the order in which they came.
    programs: ArcSwap<Vec<(u32, Arc<Program>)>>,
}

impl ProgramCache {
    /// The program, if it is there.
    pub(crate) fn find(&self, version: u32) -> Option<Arc<Program>> {
        let programs = self.programs.load();
        // The latest ones stand at the end.
        programs.iter().rev().find(|(known, _)| *known == version).map(|(_, found)| found.clone())
    }

    /// Adds a program; the one that came first makes room.
    pub(crate) fn insert(&self, version: u32, program: &Arc<Program>) {
        self.programs.rcu(|programs| {
            let mut programs: Vec<_> =
                programs.iter().filter(|(known, _)| *known != version).cloned().collect();
            if programs.len() >= PROGRAMS_MAX {
                programs.remove(0);
            }
            programs.push((version, program.clone()));
            programs
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_program_makes_room() {
        let cache = ProgramCache::default();
        let program = Arc::new(Program::compile(r#"{"sense":[]}"#).unwrap());
        for version in 1..=65 {
            cache.insert(version, &program);
        }
        cache.insert(65, &program);
        assert!(cache.find(1).is_none());
        assert!(cache.find(2).is_some());
        assert!(cache.find(65).is_some());
        assert_eq!(cache.programs.load().len(), PROGRAMS_MAX);
    }
}
